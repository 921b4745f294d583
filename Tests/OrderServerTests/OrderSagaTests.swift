import Testing

@testable import OrderServer

@Suite("The saga's machine")
struct OrderSagaTests {
    private let policy = RetryPolicy(maximumAttempts: 3, initialBackoff: .milliseconds(100), maximumBackoff: .seconds(1))
    private let unanswered = StepOutcome.noAnswer(cause: "TIMED_OUT", retryAfter: nil)

    private func handle(_ saga: inout OrderSaga, _ event: OrderSaga.Event, remaining: Duration = .seconds(10)) -> OrderSaga.Action {
        saga.handle(event, remaining: remaining, random: 1)
    }

    /// A saga of two steps in each of its states.
    private func sagas() -> [OrderSaga] {
        let reason = OrderSaga.Purpose.undo(reason: "NO")
        func saga(_ events: [OrderSaga.Event], _ purpose: OrderSaga.Purpose = .execute) -> OrderSaga {
            var saga = OrderSaga(steps: 2, purpose: purpose, policy: self.policy)
            for event in events { _ = handle(&saga, event) }
            return saga
        }
        return [
            saga([]),
            saga([.started]),
            saga([.started, .ended(unanswered)]),
            saga([.started], reason),
            saga([.started, .ended(unanswered)], reason),
            saga([.started, .ended(.done), .ended(.done)]),
            saga([.started, .ended(.refused(reason: "NO"))]),
            saga([.started, .ended(.refused(reason: "NO"))], reason),
            saga([.started, .ended(unanswered), .waited, .ended(unanswered), .waited, .ended(unanswered)]),
        ]
    }

    @Test("every state with every event")
    func everyPair() {
        let events: [OrderSaga.Event] = [.started, .waited, .ended(.done), .ended(.refused(reason: "R")), .ended(unanswered)]
        let wait = OrderSaga.Action.wait(.milliseconds(100))
        let expected: [[OrderSaga.Action]] = [
            // ready
            [.execute(step: 0, attempt: 1), .ignore, .ignore, .ignore, .ignore],
            // executing the first step
            [.ignore, .ignore, .execute(step: 1, attempt: 1), .fail(reason: "R"), wait],
            // waiting to execute it
            [.ignore, .execute(step: 0, attempt: 2), .ignore, .ignore, .ignore],
            // compensating the last step
            [.ignore, .ignore, .compensate(step: 0, attempt: 1), .giveUp(refusal: "R", reason: "NO"), wait],
            // waiting to compensate it
            [.ignore, .compensate(step: 1, attempt: 2), .ignore, .ignore, .ignore],
            // confirmed, failed, not undone, undecided
            Array(repeating: .ignore, count: 5), Array(repeating: .ignore, count: 5), Array(repeating: .ignore, count: 5),
            Array(repeating: .ignore, count: 5),
        ]
        for (saga, row) in zip(sagas(), expected) {
            for (event, action) in zip(events, row) {
                var copy = saga
                #expect(handle(&copy, event) == action, "\(saga.state) with \(event)")
                if action == .ignore { #expect(copy == saga, "an ignored event changes nothing") }
            }
        }
    }

    @Test("a refusal undoes the steps before it, last first, and only then fails")
    func compensatesBackwards() {
        var saga = OrderSaga(steps: 3, policy: self.policy)
        #expect(handle(&saga, .started) == .execute(step: 0, attempt: 1))
        #expect(handle(&saga, .ended(.done)) == .execute(step: 1, attempt: 1))
        #expect(handle(&saga, .ended(.done)) == .execute(step: 2, attempt: 1))
        #expect(handle(&saga, .ended(.refused(reason: "NO"))) == .compensate(step: 1, attempt: 1))
        #expect(handle(&saga, .ended(.done)) == .compensate(step: 0, attempt: 1))
        #expect(handle(&saga, .ended(.done)) == .fail(reason: "NO"))
    }

    @Test(
        "a compensation that is refused is not asked again: a saga that fails undoes the rest and tells of it, an order that was to be undone is left as it is"
    )
    func refusedCompensation() {
        var failing = OrderSaga(steps: 3, policy: self.policy)
        for event in [OrderSaga.Event.started, .ended(.done), .ended(.done)] { _ = handle(&failing, event) }
        #expect(handle(&failing, .ended(.refused(reason: "NO"))) == .compensate(step: 1, attempt: 1))
        #expect(handle(&failing, .ended(.refused(reason: "KEY_REUSED"))) == .compensate(step: 0, attempt: 1))
        var second = failing
        #expect(handle(&failing, .ended(.done)) == .giveUp(refusal: "KEY_REUSED", reason: "NO"))
        #expect(failing.state == .notUndone)
        #expect(handle(&second, .ended(.refused(reason: "OTHER"))) == .giveUp(refusal: "KEY_REUSED", reason: "NO"))

        var undone = OrderSaga(steps: 2, purpose: .undo(reason: "CANCELLED"), policy: self.policy)
        #expect(handle(&undone, .started) == .compensate(step: 1, attempt: 1))
        #expect(handle(&undone, .ended(.refused(reason: "KEY_REUSED"))) == .giveUp(refusal: "KEY_REUSED", reason: "CANCELLED"))
    }

    @Test("no answer is asked again under rising attempts, then left undecided")
    func attemptsAreBounded() {
        var saga = OrderSaga(steps: 1, firstAttempt: 4, policy: self.policy)
        #expect(handle(&saga, .started) == .execute(step: 0, attempt: 4))
        #expect(handle(&saga, .ended(unanswered)) == .wait(.milliseconds(100)))
        #expect(handle(&saga, .waited) == .execute(step: 0, attempt: 5))
        #expect(handle(&saga, .ended(unanswered)) == .wait(.milliseconds(200)))
        #expect(handle(&saga, .waited) == .execute(step: 0, attempt: 6))
        #expect(handle(&saga, .ended(unanswered)) == .leave)
        #expect(saga.state == .undecided)
    }

    @Test("no wait goes beyond the deadline, whatever the callee asks for")
    func deadline() {
        var saga = OrderSaga(steps: 1, policy: self.policy)
        _ = handle(&saga, .started)
        var late = saga
        #expect(handle(&late, .ended(unanswered), remaining: .milliseconds(100)) == .leave)
        #expect(handle(&saga, .ended(.noAnswer(cause: "OVERLOADED", retryAfter: .seconds(2)))) == .wait(.seconds(2)))
        var asked = OrderSaga(steps: 1, policy: self.policy)
        _ = handle(&asked, .started)
        #expect(handle(&asked, .ended(.noAnswer(cause: "OVERLOADED", retryAfter: .seconds(20)))) == .leave)
    }

    @Test("the wait doubles, keeps to its bounds and is spread over its upper half")
    func backoff() {
        for failures in 1...100 {
            let least = policy.backoff(failures: failures, retryAfter: nil, random: 0)
            let most = policy.backoff(failures: failures, retryAfter: nil, random: 1)
            #expect(most == min(.milliseconds(100) * (1 << min(failures - 1, 20)), .seconds(1)))
            #expect(least * 2 == most)
        }
    }
}
