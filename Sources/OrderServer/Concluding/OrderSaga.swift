// Invariant: steps are done in order. When a step is refused, the steps before it are compensated in reverse order; only then has the saga failed. A call
//   without an answer is repeated under the same key, and never counts as failed: the saga ends undecided, and recovery continues. A refusal of a compensation
//   is final, since repeating it changes nothing. If the saga of an order fails, its other steps are undone anyway. If an order was to be undone as a whole,
//   for example by a cancellation, it is left as it is. In both cases the saga ends and reports the refusal.
//
// Bounds: `policy.maximumAttempts` calls for one step or compensation; no wait that would end after the deadline.
// Stops: confirmed, failed, not undone, key taken, or undecided. Later events change nothing.

/// The saga of one order. It takes an event and returns an action; it has no clock and does no I/O.
struct OrderSaga: Sendable, Equatable {
    /// The saga's state.
    enum State: Sendable, Equatable {
        // -> executing, compensating
        case ready
        // -> executing the next step, waiting, compensating, confirmed, failed, keyTaken, undecided
        case executing(step: Int, attempt: Int64, failures: Int)
        // -> executing
        case waitingToExecute(step: Int, attempt: Int64, failures: Int)
        // -> compensating the step before, waiting, failed, notUndone, undecided
        case compensating(step: Int, attempt: Int64, failures: Int, why: Why)
        // -> compensating
        case waitingToCompensate(step: Int, attempt: Int64, failures: Int, why: Why)
        // Final.
        case confirmed
        // Final: some step stays in effect.
        case failed(reason: String)
        // Final: a compensation was refused, and its step stays in effect.
        case notUndone
        // Final here: another saga goes on under another key.
        case keyTaken
        // Final here: recovery starts another saga.
        case undecided
    }

    /// Why steps are undone, and what has prevented one of them from being undone.
    struct Why: Sendable, Equatable {
        var reason: String
        /// The code of the first compensation that was refused.
        var refusal: String?
    }

    enum Event: Sendable, Equatable {
        /// The saga may begin.
        case started
        /// The call of a step or compensation has ended.
        case ended(StepOutcome)
        /// The wait is over that an action asked for.
        case waited
    }

    /// The next thing to do.
    enum Action: Sendable, Equatable {
        case execute(step: Int, attempt: Int64)
        /// Call the step's compensation.
        case compensate(step: Int, attempt: Int64)
        /// Send `waited` after this time.
        case wait(Duration)
        /// Every step is done.
        case confirm
        /// Fail the order. No step is in effect.
        case fail(reason: String)
        /// Give up: a compensation was refused, its step stays in effect, and no repetition changes that.
        case giveUp(refusal: String, reason: String)
        /// Take another key for the order and start again. No step is in effect.
        case takeAnotherKey(code: String)
        /// Leave the order to recovery, because an outcome is unknown.
        case leave
        /// Do nothing: the event belongs to no step that is under way.
        case ignore
    }

    enum Purpose: Sendable, Equatable {
        /// To do all steps.
        case execute
        /// To undo all steps, for this reason.
        case undo(reason: String)
    }

    private(set) var state = State.ready
    let steps: Int
    let purpose: Purpose
    /// The number of the first attempt of each call. Above 1 if an earlier saga of this run may have sent the same keys.
    let firstAttempt: Int64
    let policy: RetryPolicy

    init(steps: Int, purpose: Purpose = .execute, firstAttempt: Int64 = 1, policy: RetryPolicy = RetryPolicy()) {
        self.steps = steps
        self.purpose = purpose
        self.firstAttempt = firstAttempt
        self.policy = policy
    }

    /// Takes an event and returns the next action.
    /// - Parameters:
    ///   - remaining: the time until the deadline
    ///   - random: 0 to 1, for the jitter of a wait
    mutating func handle(_ event: Event, remaining: Duration, random: Double) -> Action {
        switch (state, event) {
        case (.ready, .started):
            switch purpose {
            case .execute: return self.execute(step: 0)
            case .undo(let reason): return compensate(step: steps - 1, why: Why(reason: reason))
            }

        case (.executing(let step, let attempt, let failures), .ended(let outcome)):
            switch outcome {
            case .done:
                return self.execute(step: step + 1)
            case .refused(let reason):
                return compensate(step: step - 1, why: Why(reason: reason))
            case .keyTaken(let code):
                // Earlier steps used this run's keys, so they are undone and the order fails. Only at the first step can the order continue under another key.
                guard step == 0 else { return compensate(step: step - 1, why: Why(reason: code)) }
                state = .keyTaken
                return .takeAnotherKey(code: code)
            case .noAnswer(_, let retryAfter):
                guard let wait = self.wait(failures + 1, retryAfter, remaining, random) else { return leave() }
                state = .waitingToExecute(step: step, attempt: attempt + 1, failures: failures + 1)
                return .wait(wait)
            }

        case (.waitingToExecute(let step, let attempt, let failures), .waited):
            state = .executing(step: step, attempt: attempt, failures: failures)
            return .execute(step: step, attempt: attempt)

        case (.compensating(let step, let attempt, let failures, var why), .ended(let outcome)):
            switch outcome {
            case .done:
                return compensate(step: step - 1, why: why)
            case .refused(let refusal), .keyTaken(let refusal):
                why.refusal = why.refusal ?? refusal
                switch purpose {
                case .execute: return compensate(step: step - 1, why: why)
                case .undo: return giveUp(refusal: refusal, reason: why.reason)
                }
            case .noAnswer(_, let retryAfter):
                guard let wait = self.wait(failures + 1, retryAfter, remaining, random) else { return leave() }
                state = .waitingToCompensate(step: step, attempt: attempt + 1, failures: failures + 1, why: why)
                return .wait(wait)
            }

        case (.waitingToCompensate(let step, let attempt, let failures, let why), .waited):
            state = .compensating(step: step, attempt: attempt, failures: failures, why: why)
            return .compensate(step: step, attempt: attempt)

        case (.ready, _), (.executing, _), (.waitingToExecute, _), (.compensating, _), (.waitingToCompensate, _),
            (.confirmed, _), (.failed, _), (.notUndone, _), (.keyTaken, _), (.undecided, _):
            return .ignore
        }
    }

    private mutating func execute(step: Int) -> Action {
        guard step < steps else {
            state = .confirmed
            return .confirm
        }
        state = .executing(step: step, attempt: firstAttempt, failures: 0)
        return .execute(step: step, attempt: firstAttempt)
    }

    private mutating func compensate(step: Int, why: Why) -> Action {
        guard step >= 0 else {
            if let refusal = why.refusal { return giveUp(refusal: refusal, reason: why.reason) }
            state = .failed(reason: why.reason)
            return .fail(reason: why.reason)
        }
        state = .compensating(step: step, attempt: firstAttempt, failures: 0, why: why)
        return .compensate(step: step, attempt: firstAttempt)
    }

    private mutating func giveUp(refusal: String, reason: String) -> Action {
        state = .notUndone
        return .giveUp(refusal: refusal, reason: reason)
    }

    private mutating func leave() -> Action {
        state = .undecided
        return .leave
    }

    /// The wait before the next call; nil if there must be no further call.
    private func wait(_ failures: Int, _ retryAfter: Duration?, _ remaining: Duration, _ random: Double) -> Duration? {
        guard failures < policy.maximumAttempts else { return nil }
        let wait = policy.backoff(failures: failures, retryAfter: retryAfter, random: random)
        return wait < remaining ? wait : nil
    }
}
