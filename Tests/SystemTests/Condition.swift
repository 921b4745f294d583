/// Waits until a condition holds; asks again every 20 ms.
///
/// For what is a matter of moments on any machine. The bound only ends a wait that would never end: what takes as long as the machine is slow is waited for with
/// ``untilNone(isolation:_:stall:within:_:)`` or ``untilAtLeast(isolation:_:_:stall:within:_:)``, which fail when nothing moves any more.
/// - Throws: `SystemFailure` with the condition's name when the deadline passes first
func until(
    isolation: isolated (any Actor)? = #isolation,
    _ what: String,
    within bound: Duration = .seconds(60),
    _ holds: () async throws -> Bool
) async throws {
    let deadline = ContinuousClock.now + bound
    while try await !holds() {
        guard ContinuousClock.now < deadline else { throw SystemFailure(description: "not within \(bound): \(what)") }
        try await Task.sleep(for: .milliseconds(20))
    }
}

/// Waits until something is done that takes as long as the machine is slow; asks again every 20 ms.
///
/// `look` says whether it is done, and how far it has come: a number that grows.
/// - Throws: `SystemFailure` when the number has not grown for `stall`, or when `bound` has passed
func untilDone(
    isolation: isolated (any Actor)? = #isolation,
    _ what: String,
    stall: Duration = .seconds(30),
    within bound: Duration = .seconds(300),
    _ look: () async throws -> (isDone: Bool, progress: Int)
) async throws {
    let began = ContinuousClock.now
    var moved = began
    var best: Int?
    while true {
        let (isDone, progress) = try await look()
        if isDone { return }
        let now = ContinuousClock.now
        if best.map({ progress > $0 }) ?? true { (best, moved) = (progress, now) }
        guard now < moved + stall else {
            throw SystemFailure(description: "\(what): no progress for \(stall) after \((now - began).text), at \(progress)")
        }
        guard now < began + bound else { throw SystemFailure(description: "\(what): not within \(bound), at \(progress)") }
        try await Task.sleep(for: .milliseconds(20))
    }
}

/// Waits until nothing is left, for as long as what is left becomes less.
func untilNone(
    isolation: isolated (any Actor)? = #isolation,
    _ what: String,
    stall: Duration = .seconds(30),
    within bound: Duration = .seconds(300),
    _ left: () async throws -> Int
) async throws {
    try await untilDone("0 \(what)", stall: stall, within: bound) {
        let left = try await left()
        return (left == 0, -left)
    }
}

/// Waits until a number has come so far, for as long as it grows.
func untilAtLeast(
    isolation: isolated (any Actor)? = #isolation,
    _ target: Int,
    _ what: String,
    stall: Duration = .seconds(30),
    within bound: Duration = .seconds(300),
    _ count: () async throws -> Int
) async throws {
    try await untilDone("\(target) \(what)", stall: stall, within: bound) {
        let count = try await count()
        return (count >= target, count)
    }
}
