import StrictJSON

/// How one call of a step, or of its compensation, has ended.
enum StepOutcome: Sendable, Equatable {
    /// The call took effect, now or in an earlier attempt.
    case done
    /// The call did not take effect and never will under this key. `reason` is an error code.
    case refused(reason: String)
    /// The key belongs to another order, which had the same id. Nothing took effect for this order, which needs another key. `code` says how that was noticed.
    case keyTaken(code: String)
    /// It is unknown whether the call took effect, or it could not be accepted now. The same key may be sent again, but not before `retryAfter`.
    case noAnswer(cause: String, retryAfter: Duration?)
}

/// One step of the saga with its compensation.
///
/// Both are idempotent under keys that the step makes from the order and its run. They may be sent any number of times, with `attempt` counting from 1; the
/// answer to an attempt above 1 is final. Compensating a step that never took effect succeeds, and prevents the step from taking effect later.
///
/// A call is started, and reports its end once, later, on any thread. So thousands of orders can wait for one group without a task for each.
struct SagaStep: Sendable {
    /// Called once with the end of a call.
    typealias Done = @Sendable (StepOutcome) -> Void

    /// The step's name in the order's history, such as `STOCK`.
    let name: String
    /// Starts to do the step.
    let startExecuting: @Sendable (_ order: Order, _ attempt: Int64, _ done: @escaping Done) -> Void
    /// Starts to undo the step.
    let startCompensating: @Sendable (_ order: Order, _ attempt: Int64, _ done: @escaping Done) -> Void

    /// A step whose calls report their end by a callback.
    init(
        name: String,
        startExecuting: @escaping @Sendable (_ order: Order, _ attempt: Int64, _ done: @escaping Done) -> Void,
        startCompensating: @escaping @Sendable (_ order: Order, _ attempt: Int64, _ done: @escaping Done) -> Void
    ) {
        self.name = name
        self.startExecuting = startExecuting
        self.startCompensating = startCompensating
    }

    /// A step whose calls are async. Each call has a task of its own.
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

/// The result of a step, for the order's history.
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
