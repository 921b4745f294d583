import StrictJSON
import Synchronization

enum SagaResult: Sendable, Equatable {
    /// Every step is done.
    case confirmed
    /// The saga failed, and no step is in effect.
    case failed(reason: String)
    /// A compensation was refused for good. Its step, which was to be undone for `reason`, stays in effect. `refusal` is the error code of the refusal.
    case notUndone(refusal: String, reason: String)
    /// No step is in effect, and the run's keys belong to another order, which had the same id. `code` says how that was noticed.
    case keyTaken(code: String)
    /// Some call has no answer yet. `cause` is that of the last call.
    case undecided(cause: String)
}

/// Runs sagas over a list of steps. The machine decides; this type calls, waits, and notes the results. To add a step, add a value to the list.
struct SagaOrchestrator: Sendable {
    /// The steps in their order.
    let steps: [SagaStep]
    let policy: RetryPolicy

    init(steps: [SagaStep], policy: RetryPolicy = RetryPolicy()) {
        self.steps = steps
        self.policy = policy
    }

    /// Starts one saga. `done` is called once with the result, at the saga's end or at the deadline, on any thread.
    /// - Parameters:
    ///   - firstAttempt: above 1 if this run's keys may have been sent before
    ///   - deadline: no wait goes beyond it; a call that is out at that time is still waited for, within its own timeout
    func start(
        _ order: Order,
        purpose: OrderSaga.Purpose = .execute,
        firstAttempt: Int64 = 1,
        deadline: ContinuousClock.Instant,
        done: @escaping @Sendable (_ result: SagaResult, _ records: [StepRecord]) -> Void
    ) {
        saga(order, purpose, firstAttempt, deadline, done).handle(.started)
    }

    /// Runs one saga to its end or to the deadline; see ``start(_:purpose:firstAttempt:deadline:done:)``. A cancelled task makes the saga stop waiting.
    func run(
        _ order: Order,
        purpose: OrderSaga.Purpose = .execute,
        firstAttempt: Int64 = 1,
        deadline: ContinuousClock.Instant
    ) async -> (result: SagaResult, records: [StepRecord]) {
        let cancellation = SagaCancellation()
        return await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let run = saga(order, purpose, firstAttempt, deadline) { result, records in
                    continuation.resume(returning: (result, records))
                }
                cancellation.begin(run)
                run.handle(.started)
            }
        } onCancel: {
            cancellation.cancel()
        }
    }

    private func saga(
        _ order: Order,
        _ purpose: OrderSaga.Purpose,
        _ firstAttempt: Int64,
        _ deadline: ContinuousClock.Instant,
        _ done: @escaping @Sendable (_ result: SagaResult, _ records: [StepRecord]) -> Void
    ) -> SagaRun {
        let saga = OrderSaga(steps: self.steps.count, purpose: purpose, firstAttempt: firstAttempt, policy: self.policy)
        return SagaRun(order: order, steps: self.steps, saga: saga, deadline: deadline, done: done)
    }
}

/// Passes a task's cancellation on to the saga that the task waits for.
private final class SagaCancellation: Sendable {
    private let state = Mutex<(run: SagaRun?, isCancelled: Bool)>((nil, false))

    func begin(_ run: SagaRun) {
        if self.state.withLock({ state in
            state.run = run
            return state.isCancelled
        }) {
            run.cancel()
        }
    }

    func cancel() {
        self.state.withLock { state in
            state.isCancelled = true
            return state.run
        }?.cancel()
    }
}

/// One running saga. Each event comes from the call or the wait that the event before asked for, so events never overlap.
private final class SagaRun: Sendable {
    private struct State {
        var saga: OrderSaga
        var records: [StepRecord] = []
        var cause = NoAnswerCause.noAnswer
        var wait: Task<Void, Never>?
        var isCancelled = false
    }

    private let order: Order
    private let steps: [SagaStep]
    private let deadline: ContinuousClock.Instant
    private let done: @Sendable (SagaResult, [StepRecord]) -> Void
    private let state: Mutex<State>

    init(
        order: Order,
        steps: [SagaStep],
        saga: OrderSaga,
        deadline: ContinuousClock.Instant,
        done: @escaping @Sendable (SagaResult, [StepRecord]) -> Void
    ) {
        self.order = order
        self.steps = steps
        self.deadline = deadline
        self.done = done
        self.state = Mutex(State(saga: saga))
    }

    /// This ends with the machine: each event is the end of a call or of a wait, and both are bounded there.
    func handle(_ event: OrderSaga.Event) {
        let action = self.state.withLock { state -> OrderSaga.Action in
            // Only a failure needs the clock and a random number, so other events do without them.
            guard case .ended(.noAnswer(let why, _)) = event else { return state.saga.handle(event, remaining: .zero, random: 0) }
            state.cause = why
            return state.saga.handle(event, remaining: deadline - .now, random: .random(in: 0...1))
        }
        switch action {
        case .execute(let step, let attempt):
            steps[step].startExecuting(order, attempt) { self.ended(step, .execute, attempt, $0) }
        case .compensate(let step, let attempt):
            steps[step].startCompensating(order, attempt) { self.ended(step, .compensate, attempt, $0) }
        case .wait(let duration):
            let wait = Task {
                do {
                    try await Task.sleep(for: duration)
                    self.handle(.waited)
                } catch {
                    self.end(.undecided(cause: NoAnswerCause.cancelled))
                }
            }
            let isCancelled = self.state.withLock { state in
                state.wait = wait
                return state.isCancelled
            }
            if isCancelled { wait.cancel() }
        case .confirm: end(.confirmed)
        case .fail(let reason): end(.failed(reason: reason))
        case .giveUp(let refusal, let reason): end(.notUndone(refusal: refusal, reason: reason))
        case .takeAnotherKey(let code): end(.keyTaken(code: code))
        case .leave: end(.undecided(cause: self.state.withLock { $0.cause }))
        // A call that reported its end twice.
        case .ignore: break
        }
    }

    /// Ends the present wait and every later one. A call that is out is waited for.
    func cancel() {
        let wait = self.state.withLock { state in
            state.isCancelled = true
            return state.wait
        }
        wait?.cancel()
    }

    private func ended(_ step: Int, _ action: StepRecord.Action, _ attempt: Int64, _ outcome: StepOutcome) {
        state.withLock { SagaRun.note(&$0.records, steps[step].name, order.run, action, outcome, attempt) }
        handle(.ended(outcome))
    }

    private func end(_ result: SagaResult) {
        done(result, state.withLock { $0.records })
    }

    /// Several attempts of one call are recorded as one: the last.
    private static func note(
        _ records: inout [StepRecord],
        _ step: String,
        _ run: Int64,
        _ action: StepRecord.Action,
        _ outcome: StepOutcome,
        _ attempt: Int64
    ) {
        let text =
            switch outcome {
            case .done: "DONE"
            case .refused(let reason): reason
            case .keyTaken(let code): "KEY_TAKEN: " + code
            case .noAnswer(let cause, _): "\(NoAnswerCause.noAnswer): \(cause)"
            }
        let record = StepRecord(step: step, run: run, action: action, outcome: text, attempts: attempt, at: .now)
        if let last = records.last, last.step == step, last.action == action {
            records[records.count - 1] = record
        } else {
            records.append(record)
        }
    }
}
