import CircuitBreaker
import Synchronization
import Testing

@Suite struct CircuitBreakerTests {
    let clock = ManualClock()

    func make(
        recovery: TestRecovery? = nil,
        startsInRecovery: Bool = false,
        settings change: (inout CircuitBreakerConfiguration.Values) -> Void = { _ in },
        healthCheck: (@Sendable () async -> Bool)? = nil
    ) throws -> CircuitBreaker {
        var run: (@Sendable () async throws -> Void)?
        if let recovery { run = { try await recovery.pass() } }
        return CircuitBreaker(
            name: "stock",
            configuration: try makeSettings(change),
            clock: clock,
            wallClock: { [clock] in 1_000_000 + clock.now().nanoseconds / 1_000_000 },
            seed: 1,
            startsInRecovery: startsInRecovery,
            recovery: run,
            healthCheck: healthCheck
        )
    }

    func open(_ breaker: CircuitBreaker) {
        for _ in 0..<4 { if let permit = breaker.admit().permit { breaker.record(.failure("refused"), for: permit) } }
        #expect(breaker.state == .open)
    }

    @Test func aWholeRoundThroughTheRecovery() async throws {
        let recovery = TestRecovery()
        let breaker = try make(recovery: recovery)
        open(breaker)
        #expect(breaker.admit().rejection?.retryAfter == .seconds(5))
        #expect(breaker.snapshot().openUntilUnixMilliseconds == 1_005_000)
        clock.advance(by: .seconds(2))
        #expect(breaker.admit().rejection?.retryAfter == .seconds(3))
        #expect(breaker.snapshot().openUntilUnixMilliseconds == 1_005_000)
        clock.advance(by: .seconds(3))
        #expect(breaker.snapshot().state == .open, "looking changes nothing")
        for _ in 0..<10 { #expect(breaker.admit().rejection?.reason == .recovery) }
        #expect(await eventually { recovery.running == 1 })
        recovery.answer(true)
        #expect(await eventually { !breaker.snapshot().isRecoveryRunning })
        #expect(breaker.state == .halfOpen)
        for _ in 0..<2 { breaker.record(.success, for: try #require(breaker.admit().permit)) }
        #expect(breaker.state == .closed)
        #expect(recovery.starts == 1)
        let names = breaker.recentEvents().filter { $0.kind.name != "ERROR" && $0.kind.name != "NOT_PERMITTED" }.map(\.kind.name)
        #expect(names == ["STATE_TRANSITION", "STATE_TRANSITION", "RECOVERY_GATE_STARTED", "RECOVERY_GATE_PASSED", "STATE_TRANSITION"])
        #expect(breaker.recentEvents().map(\.sequence) == Array(1...UInt64(breaker.recentEvents().count)))
        #expect(breaker.recentEvents().last?.unixMilliseconds == 1_005_000)
        // One at first in open and ten during the recovery, of which the first moved the breaker on, and one more.
        #expect(breaker.snapshot().totals.notPermitted == 12)
    }

    @Test func aRecoveryThatFailsGoesBackToOpen() async throws {
        let recovery = TestRecovery()
        let breaker = try make(recovery: recovery)
        open(breaker)
        clock.advance(by: .seconds(5))
        _ = breaker.admit()
        #expect(await eventually { recovery.running == 1 })
        recovery.answer(false)
        #expect(await eventually { breaker.state == .open })
        #expect(breaker.snapshot().attempt == 2)
        #expect(
            breaker.recentEvents().contains { if case .recoveryFailed(let label, _) = $0.kind { label == "Refused()" } else { false } }
        )
    }

    @Test func aRecoveryThatHangsTimesOutAndNeverRunsTwice() async throws {
        let recovery = TestRecovery()
        let breaker = try make(recovery: recovery)
        open(breaker)
        for attempt in 2...4 {
            clock.advance(by: .seconds(5))
            _ = breaker.admit()
            #expect(await eventually { recovery.running == 1 && clock.sleeperCount > 0 })
            clock.advance(by: .seconds(30))
            #expect(await eventually { breaker.state == .open })
            #expect(breaker.snapshot().attempt == attempt)
        }
        #expect(recovery.starts == 1)
        clock.advance(by: .seconds(5))
        _ = breaker.admit()
        // The first run returns at last; its result is nobody's, and the run that waited for it begins.
        recovery.answer(true)
        #expect(await eventually { recovery.starts == 2 })
        #expect(breaker.snapshot().isRecoveryRunning)
        recovery.answer(true)
        #expect(await eventually { !breaker.snapshot().isRecoveryRunning })
        #expect(breaker.state == .halfOpen)
        #expect(recovery.mostRunning == 1)
    }

    @Test func closingByHandGoesThroughTheRecovery() async throws {
        let recovery = TestRecovery()
        let breaker = try make(recovery: recovery)
        breaker.transition(to: .forceOpen, by: "alice", reason: "maintenance")
        #expect(breaker.admit().rejection?.reason == .forcedOpen)
        #expect(breaker.transition(to: .close, by: "alice", reason: "done") == .halfOpen)
        #expect(breaker.admit().rejection?.reason == .recovery)
        #expect(await eventually { recovery.running == 1 })
        recovery.answer(true)
        #expect(await eventually { breaker.state == .closed })
        let reasons = breaker.recentEvents().compactMap { if case .transition(_, _, let reason) = $0.kind { reason } else { nil } }
        #expect(
            reasons == [
                .manual(by: "alice", reason: "maintenance"), .manual(by: "alice", reason: "done"), .recoveryPassed,
            ]
        )
    }

    @Test func startsInItsRecovery() async throws {
        let recovery = TestRecovery()
        let breaker = try make(recovery: recovery, startsInRecovery: true)
        #expect(breaker.state == .halfOpen)
        #expect(breaker.admit().rejection?.reason == .recovery)
        #expect(await eventually { recovery.running == 1 })
        recovery.answer(true)
        #expect(await eventually { breaker.state == .closed })
        #expect(breaker.recentEvents().first?.kind == .transition(from: .closed, to: .halfOpen, reason: .startup))
        #expect(try make(startsInRecovery: true).state == .closed, "without a recovery there is nothing to start in")
    }

    @Test func movesToHalfOpenWithoutTraffic() async throws {
        let breaker = try make { $0.movesToHalfOpenByItself = true }
        open(breaker)
        #expect(await eventually { clock.sleeperCount == 1 })
        clock.advance(by: .seconds(5))
        #expect(await eventually { breaker.state == .halfOpen })
    }

    @Test func aHealthCheckRecoversWithoutTraffic() async throws {
        let isHealthy = Atomic<Bool>(false)
        let checks = Atomic<Int>(0)
        let breaker = try make(
            // The clock is moved on while a check runs: that must not end it, nor its probe, nor make it slow.
            settings: {
                $0.healthCheckTimeLimit = .seconds(3600)
                $0.permitLease = .seconds(3600)
                $0.slowCallDurationThreshold = .seconds(3600)
                $0.maximumTimeInHalfOpen = .seconds(36_000)
            },
            healthCheck: {
                // Read before it is counted, so that the test's change comes after it.
                let healthy = isHealthy.load(ordering: .relaxed)
                checks.add(1, ordering: .sequentiallyConsistent)
                return healthy
            }
        )
        open(breaker)
        #expect(await eventually { clock.sleeperCount == 1 })
        clock.advance(by: .seconds(5))
        #expect(await eventually { checks.load(ordering: .relaxed) == 1 && clock.sleeperCount == 1 })
        #expect(breaker.state == .open)
        isHealthy.store(true, ordering: .relaxed)
        #expect(
            await eventually {
                clock.advance(by: .milliseconds(100))
                return breaker.state == .closed
            }
        )
        #expect(checks.load(ordering: .relaxed) == 4, "one that failed, one that moved it on, two probes of three")
    }

    @Test func aStuckProbeIsEndedByTheTimer() async throws {
        let breaker = try make { $0.permittedCallsInHalfOpen = 1 }
        open(breaker)
        clock.advance(by: .seconds(5))
        let stuck = try #require(breaker.admit().permit)
        #expect(await eventually { clock.sleeperCount == 1 })
        clock.advance(by: .seconds(2))
        #expect(await eventually { breaker.state == .open })
        #expect(breaker.record(.success, for: stuck) == .late)
    }

    @Test func theShortcutsAgreeWithTheMachine() throws {
        let breaker = try make()
        breaker.transition(to: .disable)
        let permit = try #require(breaker.admit().permit)
        #expect(breaker.record(.failure(), for: permit) == .notRecorded)
        breaker.transition(to: .forceOpen)
        for _ in 0..<10 { #expect(breaker.admit().rejection?.state == .forcedOpen) }
        #expect(breaker.snapshot().notPermittedCalls == 10)
        #expect(breaker.snapshot().totals.notPermitted == 10)
        breaker.transition(to: .close)
        #expect(breaker.snapshot().notPermittedCalls == 0)
        #expect(breaker.snapshot().totals.notPermitted == 10)
        let rejected = breaker.recentEvents().compactMap { if case .callsRejected(let count) = $0.kind { count } else { nil } }
        #expect(rejected == [1])
    }

    @Test func runRecordsHowTheCallEnded() async throws {
        struct Refused: Error {}
        let breaker = try make()
        #expect(try await breaker.run { 7 } == 7)
        await #expect(throws: Refused.self) { try await breaker.run { throw Refused() } }
        await #expect(throws: CancellationError.self) { try await breaker.run { throw CancellationError() } }
        await #expect(throws: Refused.self) { try await breaker.run(classify: { _ in .ignored }) { throw Refused() } }
        #expect(breaker.snapshot().bufferedCalls == 2)
        #expect(breaker.snapshot().totals.excluded == 2)
        #expect(breaker.recentEvents().contains { if case .error(let label, _) = $0.kind { label == "Refused" } else { false } })
        breaker.transition(to: .forceOpen)
        await #expect(throws: CircuitBreakerRejected.self) { try await breaker.run { 7 } }
    }

    @Test func aFloodOfErrorsDoesNotPushTransitionsOut() throws {
        let breaker = try make { $0.eventRingCapacity = 5 }
        breaker.transition(to: .metricsOnly)
        for _ in 0..<100 { breaker.record(.failure("refused"), for: try #require(breaker.admit().permit)) }
        let events = breaker.recentEvents()
        #expect(events.count == 7, "five errors, the transition, the crossing")
        #expect(events.first?.kind.name == "STATE_TRANSITION")
        #expect(events.map(\.sequence) == events.map(\.sequence).sorted())
    }

    @Test func resetClearsTheFigures() throws {
        let breaker = try make()
        let old = try #require(breaker.admit().permit)
        breaker.record(.failure(), for: try #require(breaker.admit().permit))
        #expect(breaker.transition(to: .reset, by: "bob") == .closed)
        #expect(breaker.snapshot().bufferedCalls == 0)
        #expect(breaker.snapshot().totals.failed == 1)
        #expect(breaker.record(.failure(), for: old) == .late)
        #expect(breaker.recentEvents().last?.kind == .reset(by: "bob", reason: nil))
    }

    @Test func shutDownBreakersAreLetGo() async throws {
        let recovery = TestRecovery()
        weak var weakBreaker: CircuitBreaker?
        do {
            let breaker = try make(recovery: recovery)
            weakBreaker = breaker
            open(breaker)
            clock.advance(by: .seconds(5))
            _ = breaker.admit()
            #expect(await eventually { recovery.running == 1 })
        }
        #expect(await eventually { weakBreaker == nil })
        recovery.answer(true)
        #expect(await eventually { recovery.running == 0 && clock.sleeperCount == 0 })
    }
}
