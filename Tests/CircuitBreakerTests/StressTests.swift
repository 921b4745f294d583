import Testing

@testable import CircuitBreaker

/// For a thread sanitizer, and for what must hold whatever the interleaving.
@Suite struct StressTests {
    @Test func manyTasksShareABreaker() async throws {
        let settings = try CircuitBreakerConfiguration { values in
            values.window = .count(50)
            values.minimumNumberOfCalls = 10
            values.permittedCallsInHalfOpen = 3
            values.waitInOpen = .constant(.milliseconds(1))
            values.slowCallDurationThreshold = .milliseconds(50)
            values.rejectionEventInterval = .milliseconds(1)
            values.ramp = .init(duration: .milliseconds(2))
        }
        let breaker = CircuitBreaker(name: "stress", configuration: settings, clock: .monotonic, recovery: { await Task.yield() })
        let events = breaker.events(bufferCapacity: 100_000)
        let (permitted, rejected, late) = await withTaskGroup(of: (Int, Int, Int).self) { group in
            for worker in 0..<8 {
                group.addTask {
                    var permitted = 0
                    var rejected = 0
                    var late = 0
                    for index in 0..<3_000 {
                        switch breaker.admit() {
                        case .rejected: rejected += 1
                        case .permitted(let permit):
                            permitted += 1
                            if index % 7 == 0 { await Task.yield() }
                            let outcomes: [CallOutcome] = [.success, .failure("x"), .success, .cancelled, .ignored]
                            if breaker.record(outcomes[(index + worker) % outcomes.count], for: permit) == .late { late += 1 }
                        }
                        if index % 200 == 0 {
                            let snapshot = breaker.snapshot()
                            #expect(snapshot.failedCalls <= snapshot.bufferedCalls)
                            #expect(snapshot.remainingProbes + snapshot.probesInFlight <= 3)
                            _ = breaker.recentEvents()
                        }
                        if index % 1_000 == 999 {
                            breaker.transition(to: worker % 2 == 0 ? .forceOpen : .metricsOnly)
                            breaker.transition(to: .close)
                        }
                    }
                    return (permitted, rejected, late)
                }
            }
            return await group.reduce(into: (0, 0, 0)) { $0 = ($0.0 + $1.0, $0.1 + $1.1, $0.2 + $1.2) }
        }
        let totals = breaker.snapshot().totals
        #expect(permitted + rejected == 24_000)
        #expect(totals.notPermitted == rejected)
        #expect(totals.lateResults == late)
        // A lease takes a minute, so that none has ended.
        #expect(Int(totals.succeeded + totals.failed + totals.excluded + totals.lateResults) == permitted)
        breaker.shutdown()
        var last: UInt64 = 0
        var state = CircuitBreakerState.closed
        for await event in events {
            #expect(event.sequence == last + 1)
            last = event.sequence
            guard case .transition(let from, let to, _) = event.kind else { continue }
            #expect(from == state)
            state = to
        }
        #expect(events.dropped == 0)
    }

    /// Calls begun and ended by many threads, the end often by another thread than the beginning, with failures in between: each counts once.
    @Test func threadsThatCountApartAddUp() async throws {
        let clock = ManualClock()
        let settings = try CircuitBreakerConfiguration { values in
            values.window = .time(seconds: 60)
            values.minimumNumberOfCalls = 100
            values.failureRateThreshold = 90
            values.slowCallDurationThreshold = .milliseconds(100)
            values.permitLease = .seconds(60)
        }
        let breaker = CircuitBreaker(name: "threads", configuration: settings, clock: clock)
        let workers = 8
        let rounds = 20
        let calls = 500
        // One call in fifty fails, and one in a hundred does not come back.
        var running = 0
        for _ in 0..<rounds {
            let permits = await withTaskGroup(of: [Permit].self) { group in
                for _ in 0..<workers {
                    group.addTask { (0..<calls).compactMap { _ in breaker.admit().permit } }
                }
                return await group.reduce(into: []) { $0 += $1 }
            }
            #expect(permits.count == workers * calls)
            running += await withTaskGroup(of: Int.self) { group in
                for worker in 0..<workers {
                    group.addTask {
                        var left = 0
                        for index in stride(from: worker, to: permits.count, by: workers) {
                            if index % 100 == 7 {
                                left += 1
                            } else {
                                let result = breaker.record(index % 500 == 0 ? .failure("x") : .success, for: permits[index])
                                #expect(result == .counted)
                            }
                        }
                        return left
                    }
                }
                return await group.reduce(0, +)
            }
            clock.advance(by: .milliseconds(30))
        }
        let expected = workers * rounds * calls
        var snapshot = breaker.snapshot()
        #expect(running == expected / 100)
        #expect(snapshot.bufferedCalls == expected - running)
        #expect(snapshot.failedCalls == expected / 500)
        #expect(snapshot.totals.succeeded == UInt64(expected - running - expected / 500))
        // An eighth of the threshold late at most.
        clock.advance(by: .milliseconds(113))
        snapshot = breaker.snapshot()
        #expect(snapshot.runningSlowCalls == running)
        #expect(snapshot.state == .closed)
    }

    /// Running calls that have taken too long open the breaker, whichever threads began them.
    @Test func callsThatThreadsLeftRunningOpenTheBreaker() async throws {
        let clock = ManualClock()
        let settings = try CircuitBreakerConfiguration { values in
            values.window = .count(100)
            values.minimumNumberOfCalls = 20
            values.slowCallRateThreshold = 50
            values.slowCallDurationThreshold = .milliseconds(100)
        }
        let breaker = CircuitBreaker(name: "threads", configuration: settings, clock: clock)
        for _ in 0..<100 { if let permit = breaker.admit().permit { breaker.record(.success, for: permit) } }
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<4 { group.addTask { for _ in 0..<25 { _ = breaker.admit() } } }
        }
        #expect(breaker.admit().permit != nil)
        clock.advance(by: .milliseconds(113))
        #expect(breaker.admit().rejection?.reason == .open)
    }
}
