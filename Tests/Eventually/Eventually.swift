/// How tests wait: they ask a question again and again until it is answered, or until a bound that only ends a wait that would never end.
///
/// **A question that fails is a question that is not answered yet.** Servers that fail over close connections, restart and refuse: a test that waits for
/// their end asks again, and the last failure's words stand in the failure at the bound. What a question throws therefore never ends a wait, but for
/// `CancellationError`: that, and the cancellation of the task, ends it at once.
///
/// A test that says that nothing fails in the meantime counts the failures itself, or looks for them outside of the wait.
///
/// ```swift
/// try await eventually("the standby is the primary") { try await standby.isPrimary() }
/// let id = try await eventuallyFound("an order") { try await orders.first?.id }
/// #expect(try await eventually { try await orders.count() == 3 })
/// ```

/// Waits until a condition holds.
/// - Parameters:
///   - what: The condition in words. Read at the bound, so it can say what was seen last.
///   - bound: For progress, and not for speed: generous on any machine.
///   - pause: Between an answer and the next question.
/// - Throws: ``NotInTime`` when the bound passes first, `CancellationError`
public func eventually(
    isolation: isolated (any Actor)? = #isolation,
    _ what: @autoclosure () -> String,
    within bound: Duration = .seconds(60),
    every pause: Duration = .milliseconds(5),
    _ holds: () async throws -> Bool
) async throws {
    let ending = try await ask(isolation: isolation, within: bound, every: pause) { try await holds() ? true : nil }
    if case .unanswered(let failure) = ending { throw NotInTime(what: what(), bound: bound, lastFailure: failure) }
}

/// Waits until there is something to find, and returns it.
///
/// Not one more `eventually`: a condition that does not hold would be found there, as the value `false`.
/// - Parameters: As for ``eventually(isolation:_:within:every:_:)``; `look` returns nil for as long as there is nothing
/// - Throws: ``NotInTime`` when the bound passes first, `CancellationError`
public func eventuallyFound<Value>(
    isolation: isolated (any Actor)? = #isolation,
    _ what: @autoclosure () -> String,
    within bound: Duration = .seconds(60),
    every pause: Duration = .milliseconds(5),
    _ look: () async throws -> Value?
) async throws -> Value {
    switch try await ask(isolation: isolation, within: bound, every: pause, look) {
    case .answered(let value): return value
    case .unanswered(let failure): throw NotInTime(what: what(), bound: bound, lastFailure: failure)
    }
}

/// Whether a condition holds before the bound passes: for an expectation, which shows the condition itself.
/// - Returns: False at the bound
/// - Throws: The question's failure when the last one before the bound failed, `CancellationError`
public func eventually(
    isolation: isolated (any Actor)? = #isolation,
    within bound: Duration = .seconds(60),
    every pause: Duration = .milliseconds(5),
    _ holds: () async throws -> Bool
) async throws -> Bool {
    switch try await ask(isolation: isolation, within: bound, every: pause, { try await holds() ? true : nil }) {
    case .answered: return true
    case .unanswered(let failure?): throw failure
    case .unanswered(nil): return false
    }
}

/// A condition that did not hold in time.
public struct NotInTime: Error, CustomStringConvertible {
    /// What was waited for, for how long, and what the last question failed with.
    public let description: String

    /// - Parameter lastFailure: What the last question before the bound failed with; nil when it was answered
    public init(what: String, bound: Duration, lastFailure: (any Error)? = nil) {
        let failure = lastFailure.map { "; the last question failed: \($0)" } ?? ""
        description = "not within \(bound): \(what)\(failure)"
    }
}

private enum Ending<Value> {
    case answered(Value)
    /// With the failure of the last question, when it failed.
    case unanswered((any Error)?)
}

/// Asks at least once, and once more when the bound has passed during a pause.
private func ask<Value>(
    isolation: isolated (any Actor)?,
    within bound: Duration,
    every pause: Duration,
    _ look: () async throws -> Value?
) async throws -> Ending<Value> {
    let deadline = ContinuousClock.now + bound
    while true {
        var failure: (any Error)?
        do {
            if let value = try await look() { return .answered(value) }
        } catch is CancellationError {
            throw CancellationError()
        } catch {
            failure = error
        }
        try Task.checkCancellation()
        guard ContinuousClock.now < deadline else { return .unanswered(failure) }
        try await Task.sleep(for: pause)
    }
}
