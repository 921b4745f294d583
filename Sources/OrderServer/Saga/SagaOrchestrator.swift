import ServerKit

/// What a saga came to.
enum SagaResult: Sendable, Equatable {
    /// Every step is done.
    case confirmed
    /// Nothing is in effect.
    case failed(reason: String)
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

    /// Runs one saga to its end, or to the deadline.
    /// - Parameters:
    ///   - firstAttempt: above 1 when the keys of this run may have been sent before
    ///   - deadline: no wait goes beyond it; a call that is out then is still waited for, within its own timeout
    func run(
        _ order: Order,
        purpose: OrderSaga.Purpose = .execute,
        firstAttempt: Int64 = 1,
        deadline: ContinuousClock.Instant
    ) async -> (result: SagaResult, records: [StepRecord]) {
        var saga = OrderSaga(steps: self.steps.count, purpose: purpose, firstAttempt: firstAttempt, policy: self.policy)
        var records: [StepRecord] = []
        var cause = "NO_ANSWER"
        var event = OrderSaga.Event.started
        // Ends with the machine: each round is a call or a wait, both bounded there.
        while true {
            // The clock and the dice are asked for a failure alone; no other event needs them.
            let action: OrderSaga.Action
            if case .ended(.noAnswer(let why, _)) = event {
                cause = why
                action = saga.handle(event, remaining: deadline - .now, random: .random(in: 0...1))
            } else {
                action = saga.handle(event, remaining: .zero, random: 0)
            }
            switch action {
            case .execute(let step, let attempt):
                let outcome = await self.steps[step].execute(order, attempt)
                SagaOrchestrator.note(&records, self.steps[step].name, order.run, .execute, outcome, attempt)
                event = .ended(outcome)
            case .compensate(let step, let attempt):
                let outcome = await self.steps[step].compensate(order, attempt)
                SagaOrchestrator.note(&records, self.steps[step].name, order.run, .compensate, outcome, attempt)
                event = .ended(outcome)
            case .wait(let duration):
                do {
                    try await Task.sleep(for: duration)
                } catch {
                    return (.undecided(cause: "CANCELLED"), records)
                }
                event = .waited
            case .confirm: return (.confirmed, records)
            case .fail(let reason): return (.failed(reason: reason), records)
            case .leave, .ignore: return (.undecided(cause: cause), records)
            }
        }
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
