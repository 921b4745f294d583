import ServerKit
import StrictJSON

/// How one call of a step, or of its compensation, ended.
enum StepOutcome: Sendable, Equatable {
    /// It took effect, now or at an earlier attempt.
    case done
    /// It did not take effect and never will under this key. The reason is an error code.
    case refused(reason: String)
    /// The key belongs to another order, whose id came round again: nothing took effect for this one, which needs another key. `code` says how that was seen.
    case keyTaken(code: String)
    /// Nobody knows whether it took effect, or it could not be taken on now. The same key may be sent again, not before `retryAfter`.
    case noAnswer(cause: String, retryAfter: Duration?)
}

/// One step of the saga with its compensation.
///
/// Both are idempotent under keys that the step makes from the order and its run: they may be sent any number of times, `attempt` counting from 1, and
/// what was told to an attempt above 1 is final. A compensation of something that never took effect succeeds, and keeps it from taking effect later.
///
/// A step is started and says later how it ended, once, on whatever thread: thousands of orders wait for one group then without a task each.
struct SagaStep: Sendable {
    /// Told once how a call ended.
    typealias Done = @Sendable (StepOutcome) -> Void

    /// Its name in the order's history, such as `STOCK`.
    let name: String
    /// Begins to do it.
    let startExecuting: @Sendable (_ order: Order, _ attempt: Int64, _ done: @escaping Done) -> Void
    /// Begins to undo it.
    let startCompensating: @Sendable (_ order: Order, _ attempt: Int64, _ done: @escaping Done) -> Void

    /// A step of calls that tell their end.
    init(
        name: String,
        startExecuting: @escaping @Sendable (_ order: Order, _ attempt: Int64, _ done: @escaping Done) -> Void,
        startCompensating: @escaping @Sendable (_ order: Order, _ attempt: Int64, _ done: @escaping Done) -> Void
    ) {
        self.name = name
        self.startExecuting = startExecuting
        self.startCompensating = startCompensating
    }

    /// A step of async calls: each has a task of its own.
    init(
        name: String,
        execute: @escaping @Sendable (_ order: Order, _ attempt: Int64) async -> StepOutcome,
        compensate: @escaping @Sendable (_ order: Order, _ attempt: Int64) async -> StepOutcome
    ) {
        self.init(name: name) { order, attempt, done in
            Task { done(await execute(order, attempt)) }
        } startCompensating: { order, attempt, done in
            Task { done(await compensate(order, attempt)) }
        }
    }
}

/// What a step came to, for the order's history.
struct StepRecord: Sendable, Equatable {
    /// What was asked of the step.
    enum Action: String, Sendable {
        case execute = "EXECUTE"
        case compensate = "COMPENSATE"
    }

    var step: String
    var run: Int64
    var action: Action
    /// `DONE`, the code of a refusal, or `NO_ANSWER`.
    var outcome: String
    /// The number of the last attempt.
    var attempts: Int64
    var at: Timestamp
}
