import CircuitBreaker
import Testing

/// For a thread sanitizer, and for what must hold whatever the interleaving.
@Suite struct StressTests {
    @Test func manyTasksShareABreaker() async throws {
        let settings = try CircuitBreakerSettings { values in
            values.window = .count(50)
            values.minimumNumberOfCalls = 10
            values.permittedCallsInHalfOpen = 3
            values.waitInOpen = .constant(.milliseconds(1))
            values.slowCallDurationThreshold = .milliseconds(50)
            values.rejectionEventInterval = .milliseconds(1)
            values.ramp = .init(duration: .milliseconds(2))
        }
        let breaker = CircuitBreaker(name: "stress", settings: settings, clock: .monotonic, recoveryGate: { await Task.yield() })
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
                            let figures = breaker.snapshot()
                            #expect(figures.failedCalls <= figures.bufferedCalls)
                            #expect(figures.remainingProbes + figures.probesInFlight <= 3)
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
}
