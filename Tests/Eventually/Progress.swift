/// Waits until something is done that takes as long as the machine is slow; asks again every 20 ms.
///
/// A look that fails is no progress, and nothing else: the next one follows.
/// - Parameter look: Says whether it is done, and how far it has come: a number that grows
/// - Throws: ``NotInTime`` when the number has not grown for `stall`, or when `bound` has passed; `CancellationError`
public func eventuallyDone(
    isolation: isolated (any Actor)? = #isolation,
    _ what: String,
    stall: Duration = .seconds(30),
    within bound: Duration = .seconds(300),
    _ look: () async throws -> (isDone: Bool, progress: Int)
) async throws {
    let began = ContinuousClock.now
    var moved = began
    var best: Int?
    var last: Int?
    while true {
        var failure: (any Error)?
        do {
            let (isDone, progress) = try await look()
            if isDone { return }
            if best.map({ progress > $0 }) ?? true { (best, moved) = (progress, ContinuousClock.now) }
            last = progress
        } catch is CancellationError {
            throw CancellationError()
        } catch {
            failure = error
        }
        try Task.checkCancellation()
        let now = ContinuousClock.now
        let place = last.map { "at \($0)" } ?? "never answered"
        guard now < moved + stall else {
            throw NotInTime(what: "\(what): no progress for \(stall), \(place)", bound: now - began, lastFailure: failure)
        }
        guard now < began + bound else { throw NotInTime(what: "\(what), \(place)", bound: bound, lastFailure: failure) }
        try await Task.sleep(for: .milliseconds(20))
    }
}

/// Waits until nothing is left, for as long as what is left becomes less.
public func eventuallyNone(
    isolation: isolated (any Actor)? = #isolation,
    _ what: String,
    stall: Duration = .seconds(30),
    within bound: Duration = .seconds(300),
    _ left: () async throws -> Int
) async throws {
    try await eventuallyDone("0 \(what)", stall: stall, within: bound) {
        let left = try await left()
        return (left == 0, -left)
    }
}

/// Waits until a number has come so far, for as long as it grows.
public func eventuallyAtLeast(
    isolation: isolated (any Actor)? = #isolation,
    _ target: Int,
    _ what: String,
    stall: Duration = .seconds(30),
    within bound: Duration = .seconds(300),
    _ count: () async throws -> Int
) async throws {
    try await eventuallyDone("\(target) \(what)", stall: stall, within: bound) {
        let count = try await count()
        return (count >= target, count)
    }
}
