import ServerKit
import StrictJSON
import Synchronization

/// What a saga came to.
enum SagaResult: Sendable, Equatable {
    /// Every step is done.
    case confirmed
    /// Nothing is in effect.
    case failed(reason: String)
    /// A compensation was refused for good: what it should have undone, for `reason`, stays in effect. `refusal` is the refusal's error code.
    case notUndone(refusal: String, reason: String)
    /// Nothing is in effect, and the run's keys are another order's, whose id came round again. `code` says how that was seen.
    case keyTaken(code: String)
    /// Something has no answer yet. The cause is that of the last call.
    case undecided(cause: String)
}

/// Runs sagas over a list of steps: the machine decides, this calls, waits and notes. A new step is one more value in the list.
struct SagaOrchestrator: Sendable {
    /// The steps in their order.
    let steps: [SagaStep]
    let policy: RetryPolicy

    init(steps: [SagaStep], policy: RetryPolicy = RetryPolicy()) {
        self.steps = steps
        self.policy = policy
    }

    /// Starts one saga; `done` is called once with what it came to, at its end or at the deadline, on whatever thread that is known.
    /// - Parameters:
    ///   - firstAttempt: above 1 when the keys of this run may have been sent before
    ///   - deadline: no wait goes beyond it; a call that is out then is still waited for, within its own timeout
    func start(
        _ order: Order,
        purpose: OrderSaga.Purpose = .execute,
        firstAttempt: Int64 = 1,
        deadline: ContinuousClock.Instant,
        done: @escaping @Sendable (_ result: SagaResult, _ records: [StepRecord]) -> Void
    ) {
        self.saga(order, purpose, firstAttempt, deadline, done).handle(.started)
    }

    /// Runs one saga to its end, or to the deadline; see ``start(_:purpose:firstAttempt:deadline:done:)``. Cancelled, it waits no more.
    func run(
        _ order: Order,
        purpose: OrderSaga.Purpose = .execute,
        firstAttempt: Int64 = 1,
        deadline: ContinuousClock.Instant
    ) async -> (result: SagaResult, records: [StepRecord]) {
        let cancellation = SagaCancellation()
        return await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let run = self.saga(order, purpose, firstAttempt, deadline) { result, records in
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

/// Hands a task's cancellation to the saga that the task waits for.
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

/// One saga that runs. Its events come one after the other, each from the call or the wait that the one before has asked for.
private final class SagaRun: Sendable {
    private struct State {
        var saga: OrderSaga
        var records: [StepRecord] = []
        var cause = "NO_ANSWER"
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

    /// Ends with the machine: each event is the end of a call or of a wait, both bounded there.
    func handle(_ event: OrderSaga.Event) {
        let action = self.state.withLock { state -> OrderSaga.Action in
            // The clock and the dice are asked for a failure alone; no other event needs them.
            guard case .ended(.noAnswer(let why, _)) = event else { return state.saga.handle(event, remaining: .zero, random: 0) }
            state.cause = why
            return state.saga.handle(event, remaining: self.deadline - .now, random: .random(in: 0...1))
        }
        switch action {
        case .execute(let step, let attempt):
            self.steps[step].startExecuting(self.order, attempt) { self.ended(step, .execute, attempt, $0) }
        case .compensate(let step, let attempt):
            self.steps[step].startCompensating(self.order, attempt) { self.ended(step, .compensate, attempt, $0) }
        case .wait(let duration):
            let wait = Task {
                do {
                    try await Task.sleep(for: duration)
                    self.handle(.waited)
                } catch {
                    self.end(.undecided(cause: "CANCELLED"))
                }
            }
            let isCancelled = self.state.withLock { state in
                state.wait = wait
                return state.isCancelled
            }
            if isCancelled { wait.cancel() }
        case .confirm: self.end(.confirmed)
        case .fail(let reason): self.end(.failed(reason: reason))
        case .giveUp(let refusal, let reason): self.end(.notUndone(refusal: refusal, reason: reason))
        case .takeAnotherKey(let code): self.end(.keyTaken(code: code))
        case .leave: self.end(.undecided(cause: self.state.withLock { $0.cause }))
        // A call that told its end twice.
        case .ignore: break
        }
    }

    /// Ends a wait that goes on, and those that would come; a call that is out is waited for.
    func cancel() {
        let wait = self.state.withLock { state in
            state.isCancelled = true
            return state.wait
        }
        wait?.cancel()
    }

    private func ended(_ step: Int, _ action: StepRecord.Action, _ attempt: Int64, _ outcome: StepOutcome) {
        self.state.withLock { SagaRun.note(&$0.records, self.steps[step].name, self.order.run, action, outcome, attempt) }
        self.handle(.ended(outcome))
    }

    private func end(_ result: SagaResult) {
        self.done(result, self.state.withLock { $0.records })
    }

    /// Attempts of one call make one record: the last.
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
            case .noAnswer(let cause, _): "NO_ANSWER: " + cause
            }
        let record = StepRecord(step: step, run: run, action: action, outcome: text, attempts: attempt, at: .now)
        if let last = records.last, last.step == step, last.action == action {
            records[records.count - 1] = record
        } else {
            records.append(record)
        }
    }
}
