import Testing

@testable import CircuitBreaker

@Suite struct MachineTests {
    @Test func opensAtTheFailureRateAndNotBelowTheMinimum() throws {
        var machine = try makeMachine()
        for _ in 0..<3 { machine.call(.failure("refused"), at: 0) }
        #expect(machine.state == .closed)
        #expect(machine.snapshot(at: 0).failureRate == nil)
        machine.call(.success, at: 0)
        #expect(machine.state == .open)
        #expect(machine.snapshot(at: 0).failureRate == 75)
        #expect(machine.snapshot(at: 0).bufferedCalls == 4)
    }

    @Test func opensAtTheSlowCallRate() throws {
        var machine = try makeMachine { $0.slowCallRateThreshold = 50 }
        for index in 0..<4 { machine.call(.success, at: 0, lasting: index < 2 ? 100 * millisecond + 1 : 100 * millisecond) }
        #expect(machine.state == .open)
        #expect(machine.snapshot(at: 0).slowCalls == 2)
    }

    @Test func slowCallsCountWhileTheyAreStillRunning() throws {
        var machine = try makeMachine { $0.slowCallRateThreshold = 50 }
        var permits: [Permit] = []
        for _ in 0..<4 { permits.append(try #require(machine.admit(at: 0).0.permit)) }
        #expect(machine.snapshot(at: 99 * millisecond).runningSlowCalls == 0)
        #expect(machine.snapshot(at: 120 * millisecond).runningSlowCalls == 4)
        // Nothing has ended yet, and the next call is turned away.
        let (admission, _) = machine.admit(at: 120 * millisecond)
        #expect(admission.rejection?.state == .open)
        #expect(machine.snapshot(at: 120 * millisecond).slowCallRate == 100)
        for permit in permits { #expect(machine.record(.failure("timeout"), for: permit, at: 130 * millisecond).0 == .late) }
    }

    @Test func runningSlowCallsAreNotCountedTwiceNorForEver() throws {
        var machine = try makeMachine { $0.minimumNumberOfCalls = 10 }
        let permit = try #require(machine.admit(at: 0).0.permit)
        _ = machine.admit(at: 0)
        _ = machine.admit(at: 200 * millisecond)
        #expect(machine.snapshot(at: 200 * millisecond).runningSlowCalls == 2)
        #expect(machine.record(.success, for: permit, at: 200 * millisecond).0 == .counted)
        #expect(machine.snapshot(at: 200 * millisecond).runningSlowCalls == 1)
        #expect(machine.snapshot(at: 200 * millisecond).slowCalls == 1)
        #expect(machine.snapshot(at: 3 * second).runningSlowCalls == 0, "the leases have ended")
    }

    @Test func probesAreLimitedAndDecide() throws {
        var machine = try makeMachine()
        machine.fail(at: 0)
        #expect(machine.admit(at: 5 * second - 1).0.rejection?.retryAfter == .nanoseconds(1))
        let first = try #require(machine.admit(at: 5 * second).0.permit)
        #expect(machine.state == .halfOpen)
        let others = (0..<2).compactMap { _ in machine.admit(at: 5 * second).0.permit }
        #expect(others.count == 2)
        #expect(machine.admit(at: 5 * second).0.rejection?.reason == .probesTaken)
        #expect(machine.record(.cancelled, for: first, at: 5 * second).0 == .gaveBack)
        let again = try #require(machine.admit(at: 5 * second).0.permit)
        #expect(machine.record(.success, for: first, at: 5 * second).0 == .late, "its slot is another's by now")
        _ = machine.record(.success, for: others[0], at: 5 * second)
        #expect(machine.state == .halfOpen)
        _ = machine.record(.success, for: again, at: 5 * second)
        // One of three may still fail: 33 % is below the threshold whatever it does.
        #expect(machine.state == .closed)
        #expect(machine.attempt == 0)
        #expect(machine.record(.failure(), for: others[1], at: 5 * second).0 == .late)
        #expect(machine.snapshot(at: 5 * second).bufferedCalls == 0)
    }

    @Test func aLeaseThatEndsCountsAsFailedAndSpendsItsSlot() throws {
        var machine = try makeMachine { $0.permittedCallsInHalfOpen = 4 }
        machine.fail(at: 0)
        let stuck = try #require(machine.admit(at: 5 * second).0.permit)
        #expect(machine.nextWake == 7 * second)
        machine.call(.success, at: 5 * second)
        machine.takePendingEvents { _ in }
        #expect(machine.hitDeadline(at: 7 * second - 1) == .none)
        #expect(machine.hitDeadline(at: 7 * second) == .publish)
        #expect(machine.state == .halfOpen)
        #expect(machine.snapshot(at: 7 * second).failedCalls == 1)
        #expect(machine.snapshot(at: 7 * second).remainingProbes == 2)
        #expect(machine.record(.success, for: stuck, at: 7 * second).0 == .late)
        machine.call(.failure(), at: 7 * second)
        #expect(machine.state == .open)
        #expect(machine.attempt == 2)
        #expect(machine.totals.endedLeases == 1)
    }

    @Test func aResultAfterItsLeaseIsLateEvenWhenNobodyLookedBefore() throws {
        var machine = try makeMachine()
        machine.fail(at: 0)
        let stuck = try #require(machine.admit(at: 5 * second).0.permit)
        #expect(machine.record(.success, for: stuck, at: 8 * second).0 == .late)
        #expect(machine.snapshot(at: 8 * second).failedCalls == 1)
    }

    @Test func halfOpenEndsAtItsMaximumTime() throws {
        var machine = try makeMachine { $0.maximumTimeInHalfOpen = .seconds(1) }
        machine.fail(at: 0)
        machine.call(.success, at: 5 * second)
        #expect(machine.nextWake == 6 * second)
        #expect(machine.hitDeadline(at: 6 * second) == .publish)
        #expect(machine.state == .open)
        #expect(machine.attempt == 2)
    }

    @Test func halfOpenHasRatesOfItsOwn() throws {
        var machine = try makeMachine { $0.halfOpenFailureRateThreshold = 30 }
        machine.fail(at: 0)
        machine.call(.failure(), at: 5 * second)
        #expect(machine.state == .open, "one of three is 33 %")
    }

    @Test func slowProbesThatStillRunCount() throws {
        var machine = try makeMachine { $0.slowCallRateThreshold = 60 }
        machine.fail(at: 0)
        _ = machine.admit(at: 5 * second)
        _ = machine.admit(at: 5 * second)
        _ = machine.admit(at: 5 * second + 101 * millisecond)
        #expect(machine.state == .open)
    }

    @Test func theRecoveryLetsNoProbeThroughUntilItPasses() throws {
        var machine = try makeMachine(recovery: true)
        machine.fail(at: 0)
        let (admission, action) = machine.admit(at: 5 * second)
        let run = machine.generation
        #expect(admission.rejection?.reason == .recovery)
        #expect(action == .startRecovery(run: run))
        for _ in 0..<5 { #expect(machine.admit(at: 6 * second).0.rejection?.reason == .recovery) }
        #expect(machine.recoveryFailed(run: run, failure: .timedOut, at: 7 * second) == .publish)
        #expect(machine.state == .open)
        #expect(machine.attempt == 2)
        #expect(machine.recoveryPassed(run: run, at: 7 * second) == .none, "it has been answered")
        _ = machine.admit(at: 12 * second)
        #expect(machine.recoveryPassed(run: run, at: 12 * second) == .none, "an earlier run's")
        #expect(machine.recoveryPassed(run: machine.generation, at: 12 * second) == .publish)
        for _ in 0..<2 { machine.call(.success, at: 12 * second) }
        #expect(machine.state == .closed)
    }

    @Test func startsInItsRecovery() throws {
        var machine = try makeMachine(recovery: true, startsInRecovery: true)
        var kinds: [CircuitBreakerEvent.Kind] = []
        machine.takePendingEvents { kinds.append($0.kind) }
        #expect(kinds == [.transition(from: .closed, to: .halfOpen, reason: .startup), .recoveryStarted(attempt: 0)])
        #expect(machine.admit(at: 0).0.rejection?.reason == .recovery)
        _ = machine.recoveryPassed(run: 1, at: 0)
        #expect(machine.state == .closed)
    }

    @Test func theRampGrowsBack() throws {
        var machine = try makeMachine {
            $0.ramp = .init(duration: .seconds(10), initialShare: 0.1)
            $0.permittedCallsInHalfOpen = 1
            $0.minimumNumberOfCalls = 10
        }
        for _ in 0..<10 { machine.call(.failure(), at: 0) }
        machine.call(.success, at: 5 * second)
        #expect(machine.phaseName == "ramping")
        func passed(at now: Int64) -> Int {
            (0..<100).reduce(into: 0) { count, _ in if machine.call(.success, at: now) != nil { count += 1 } }
        }
        #expect((9...11).contains(passed(at: 5 * second)))
        #expect((54...56).contains(passed(at: 10 * second)))
        #expect(machine.snapshot(at: 10 * second).rampShare == 0.55)
        #expect(machine.attempt == 1)
        #expect(passed(at: 15 * second) == 100)
        #expect(machine.attempt == 0)
        #expect(machine.snapshot(at: 15 * second).rampShare == nil)
    }

    @Test func metricsOnlyTellsOnceForEachCrossing() throws {
        var machine = try makeMachine()
        _ = machine.transition(to: .metricsOnly, by: nil, reason: nil, at: 0)
        machine.fail(at: 0)
        machine.fail(at: 0)
        var crossings = 0
        machine.takePendingEvents { if case .failureRateReached = $0.kind { crossings += 1 } }
        #expect(crossings == 1)
        #expect(machine.state == .metricsOnly)
        #expect(machine.snapshot(at: 0).failureRate == 100)
    }

    @Test func rejectionsAreSummedIntoOneEventAnInterval() throws {
        var machine = try makeMachine()
        machine.fail(at: 0)
        machine.takePendingEvents { _ in }
        for _ in 0..<10 { _ = machine.admit(at: 0) }
        _ = machine.admit(at: second)
        var counts: [UInt64] = []
        machine.takePendingEvents { if case .callsRejected(let count) = $0.kind { counts.append(count) } }
        #expect(counts == [1, 10])
        #expect(machine.totals.notPermitted == 11)
        #expect(machine.snapshot(at: second).notPermittedCalls == 11)
    }

    @Test func attemptsWaitLonger() throws {
        var machine = try makeMachine(recovery: true) { $0.waitInOpen = .custom(maximum: .seconds(10)) { .seconds($0) } }
        machine.fail(at: 0)
        var now: Int64 = 0
        for attempt in 1...4 {
            #expect(machine.attempt == attempt)
            #expect(machine.snapshot(at: now).openRemaining == .seconds(attempt))
            now += Int64(attempt) * second
            _ = machine.admit(at: now)
            _ = machine.recoveryFailed(run: machine.generation, failure: .failed(label: "x"), at: now)
        }
    }

    @Test func longLabelsAreCutBetweenCharacters() {
        let cut = String(repeating: "ä", count: 99).appending("👩‍👩‍👧‍👦 and more").cut
        #expect(cut == String(repeating: "ä", count: 99))
        #expect("short".cut == "short")
    }
}

extension String {
    fileprivate func appending(_ other: String) -> String { self + other }
}
