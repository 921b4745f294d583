import SeededRandom
import Testing

@testable import CircuitBreaker

/// Random sequences of events. A failure prints its seed; `check(seed:)` with it runs the same sequence again.
@Suite struct PropertyTests {
    @Test(arguments: 0..<400)
    func invariantsHold(seed: Int) throws { try check(seed: UInt64(seed)) }

    func check(seed: UInt64) throws {
        var random = SplitMix64(seed: seed)
        let hasRecovery = Bool.random(using: &random)
        let hasCheck = Bool.random(using: &random)
        let permitted = Int.random(in: 1...6, using: &random)
        let windowSize = Int.random(in: 1...20, using: &random)
        let isTimed = Bool.random(using: &random)
        let threshold = Double.random(in: 10...100, using: &random)
        let hasRamp = Bool.random(using: &random)
        let minimum = Int.random(in: 1...windowSize, using: &random)
        var machine = try makeMachine(
            recovery: hasRecovery,
            healthCheck: hasCheck,
            startsInRecovery: Bool.random(using: &random),
            seed: seed
        ) {
            $0.window = isTimed ? .time(seconds: windowSize) : .count(windowSize)
            $0.minimumNumberOfCalls = minimum
            $0.failureRateThreshold = threshold
            $0.permittedCallsInHalfOpen = permitted
            $0.maximumTimeInHalfOpen = .seconds(10)
            $0.movesToHalfOpenByItself = true
            $0.waitInOpen = .exponential(initial: .milliseconds(500), multiplier: 2, jitter: 0.5, maximum: .seconds(4))
            if hasRamp { $0.ramp = .init(duration: .seconds(2), initialShare: 0.2) }
        }
        var twin = machine
        var now: Int64 = 0
        var permits: [Permit] = []
        var records: UInt64 = 0
        var rejected: UInt64 = 0
        var last = CircuitBreakerState.closed
        let context: @Sendable (Int) -> Comment = { "seed \(seed), step \($0)" }

        for step in 0..<300 {
            now += Int64.random(in: 0...400, using: &random) * millisecond
            let before = machine
            // What each event does to one machine it does to its twin: nothing but the arguments decides.
            switch Int.random(in: 0..<20, using: &random) {
            case 0..<8:
                let (admission, action) = machine.admit(at: now)
                let (other, otherAction) = twin.admit(at: now)
                #expect(admission == other && action == otherAction, context(step))
                if let permit = admission.permit {
                    permits.append(permit)
                    #expect(machine.phaseName != "recovering" && machine.phaseName != "recoveringThenClosed", context(step))
                    #expect(machine.state != .open && machine.state != .forcedOpen, context(step))
                } else {
                    rejected += 1
                }
            case 8..<16 where !permits.isEmpty:
                let permit = permits.remove(at: Int.random(in: 0..<permits.count, using: &random))
                let outcome: CallOutcome =
                    switch Int.random(in: 0..<6, using: &random) {
                    case 0, 1: .success
                    case 2, 3: .failure("x")
                    case 4: .ignored
                    default: .cancelled
                    }
                let (result, action) = machine.record(outcome, for: permit, at: now)
                let (other, otherAction) = twin.record(outcome, for: permit, at: now)
                #expect(result == other && action == otherAction, context(step))
                if result != .notRecorded { records += 1 }
                if permit.generation != before.generation { #expect(result == .late || result == .notRecorded, context(step)) }
                // Recorded a second time: in half-open it must not count.
                if permit.isProbe {
                    #expect(machine.record(.success, for: permit, at: now).0 == .late, context(step))
                    _ = twin.record(.success, for: permit, at: now)
                    records += 1
                }
            case 16:
                let run = machine.generation - UInt64.random(in: 0...1, using: &random)
                _ =
                    Bool.random(using: &random)
                    ? (machine.recoveryPassed(run: run, at: now), twin.recoveryPassed(run: run, at: now))
                    : (
                        machine.recoveryFailed(run: run, failure: .timedOut, at: now),
                        twin.recoveryFailed(run: run, failure: .timedOut, at: now)
                    )
            case 17:
                _ = (machine.hitDeadline(at: now), twin.hitDeadline(at: now))
            case 18:
                let healthy = Bool.random(using: &random)
                let run = machine.generation
                _ = (
                    machine.healthCheckAnswered(run: run, healthy: healthy, at: now),
                    twin.healthCheckAnswered(run: run, healthy: healthy, at: now)
                )
            default:
                guard Int.random(in: 0..<6, using: &random) == 0 else { continue }
                let manual = ManualTransition.allCases.randomElement(using: &random) ?? .close
                _ = machine.transition(to: manual, by: "a", reason: nil, at: now)
                _ = twin.transition(to: manual, by: "a", reason: nil, at: now)
            }

            let snapshot = machine.snapshot(at: now)
            #expect(snapshot == machine.snapshot(at: now), "looking changes nothing; \(context(step))")
            #expect(snapshot == twin.snapshot(at: now), context(step))
            #expect(machine.generation >= before.generation, context(step))
            if machine.phaseName == "probing" {
                #expect(snapshot.probesInFlight + snapshot.bufferedCalls + snapshot.remainingProbes == permitted, context(step))
                #expect(snapshot.remainingProbes >= 0 && snapshot.probesInFlight >= 0, context(step))
            } else if machine.phaseName.hasPrefix("recovering") {
                #expect(snapshot.probesInFlight == 0 && snapshot.bufferedCalls == 0, context(step))
            }
            if !isTimed { #expect(snapshot.bufferedCalls <= max(windowSize, permitted), context(step)) }
            #expect(snapshot.slowFailedCalls <= min(snapshot.slowCalls, snapshot.failedCalls), context(step))
            #expect(max(snapshot.slowCalls, snapshot.failedCalls) <= snapshot.bufferedCalls, context(step))
            #expect(snapshot.totals.notPermitted == rejected, "a rejected call is counted once; \(context(step))")
            #expect(
                snapshot.totals.succeeded + snapshot.totals.failed + snapshot.totals.excluded + snapshot.totals.lateResults
                    >= records,
                context(step)
            )
            if case .open(let open) = machine.phase { #expect(open.until - now <= 4 * second, context(step)) }
            if machine.state == .closed, !isTimed, snapshot.bufferedCalls >= minimum {
                #expect(
                    percent(snapshot.failedCalls, of: snapshot.bufferedCalls) < threshold,
                    "closed beyond its threshold; \(context(step))"
                )
            }
            machine.takePendingEvents { event in
                guard case .transition(let from, let to, let reason) = event.kind else { return }
                #expect(from == last, "transitions are a chain; \(context(step))")
                last = to
                if case .failureRate(let percent) = reason { #expect(percent >= threshold, context(step)) }
            }
            twin.takePendingEvents { _ in }
            #expect(last == machine.state, context(step))
        }
        // Every result is accounted for exactly once: ended leases are the only failures that nobody recorded, and a health check that serves as a
        // probe is the only record the test did not make.
        let totals = machine.totals
        let accounted = totals.succeeded + totals.failed + totals.excluded + totals.lateResults - totals.endedLeases
        #expect(hasCheck ? accounted >= records : accounted == records, "seed \(seed)")
    }

    /// Calls of free periods are counted beside the machine. One that is told of them later decides, counts and emits what one does that is asked
    /// every time.
    @Test(arguments: 0..<40)
    func freePeriodsChangeNothing(ten: Int) throws {
        let free = try (ten * 10..<ten * 10 + 10).reduce(0) { try $0 + compareWithFreePeriods(seed: $1) }
        #expect(free > 300, "too few calls of a free period to show anything")
    }

    /// Returns how many calls were made or ended in free periods.
    func compareWithFreePeriods(seed: Int) throws -> Int {
        var random = SplitMix64(seed: UInt64(seed))
        let isTimed = Bool.random(using: &random)
        let windowSize = Int.random(in: 1...(isTimed ? 3 : 20), using: &random)
        let hasRamp = Bool.random(using: &random)
        let counts = Int.random(in: 0..<4, using: &random) > 0
        let minimum = Int.random(in: 1...(isTimed ? 20 : windowSize), using: &random)
        let failurePercent = Int.random(in: 0...60, using: &random)
        var asked = try makeMachine(seed: UInt64(seed)) {
            $0.window = isTimed ? .time(seconds: windowSize) : .count(windowSize)
            $0.minimumNumberOfCalls = minimum
            $0.failureRateThreshold = 60
            $0.slowCallRateThreshold = 50
            $0.countsRunningSlowCalls = counts
            $0.waitInOpen = .constant(.milliseconds(200))
            if hasRamp { $0.ramp = .init(duration: .milliseconds(300), initialShare: 0.5) }
        }
        var told = asked
        var period: FreePeriod?
        var calls = FreeCalls()
        var free = 0
        var permits: [Permit] = []
        var now: Int64 = 0
        func tell() {
            if period != nil { told.absorb(calls) }
            period = nil
            calls = FreeCalls()
        }
        for step in 0..<600 {
            let context: Comment = "seed \(seed), step \(step)"
            now += Int64.random(in: 0...(Int.random(in: 0..<8, using: &random) == 0 ? 150 : 6), using: &random) * millisecond
            // A thread may have read the clock a while ago.
            let time = max(now - Int64.random(in: 0...20, using: &random) * millisecond, 0)
            if Int.random(in: 0..<40, using: &random) == 0 {
                let manual = ManualTransition.allCases.randomElement(using: &random) ?? .close
                tell()
                #expect(
                    told.transition(to: manual, by: nil, reason: nil, at: time)
                        == asked.transition(to: manual, by: nil, reason: nil, at: time),
                    context
                )
            } else if Bool.random(using: &random) || permits.isEmpty {
                let (admission, action) = asked.admit(at: time)
                if let present = period, time >= present.from, time < present.until {
                    free += 1
                    calls.start(at: time, present)
                    #expect(admission == .permitted(Permit(generation: present.generation, at: time)) && action == .none, context)
                } else {
                    tell()
                    let other = told.admit(at: time)
                    #expect(admission == other.0 && action == other.1, context)
                }
                if let permit = admission.permit { permits.append(permit) }
            } else {
                let permit = permits.remove(at: Int.random(in: 0..<permits.count, using: &random))
                let outcome: CallOutcome =
                    Int.random(in: 0..<100, using: &random) < failurePercent
                    ? .failure("x") : Int.random(in: 0..<9, using: &random) == 0 ? .cancelled : .success
                let (result, action) = asked.record(outcome, for: permit, at: time)
                if case .success = outcome, let present = period, present.takes(permit, endedAt: time) {
                    free += 1
                    calls.succeed(startedAt: permit.startedAt.nanoseconds, duration: time - permit.startedAt.nanoseconds, present)
                    #expect(result == .counted && action == .none, context)
                } else {
                    tell()
                    let other = told.record(outcome, for: permit, at: time)
                    #expect(result == other.0 && action == other.1, context)
                }
            }
            #expect(asked.pendingEvents == told.pendingEvents, context)
            asked.takePendingEvents { _ in }
            told.takePendingEvents { _ in }
            var copy = told
            if period != nil { copy.absorb(calls) }
            #expect(copy.snapshot(at: now) == asked.snapshot(at: now), context)
            if period == nil { period = told.freePeriod(around: time) }
        }
        return free
    }

    /// The windows against lists that are counted anew each time.
    @Test(arguments: 0..<100)
    func windowsAgreeWithAList(seed: Int) {
        var random = SplitMix64(seed: UInt64(seed))
        let size = Int.random(in: 1...12, using: &random)
        var byCount = SlidingWindow(.count(size), at: 0)
        var byTime = SlidingWindow(.time(seconds: size), at: 0)
        var calls: [(at: Int64, failed: Bool, slow: Bool)] = []
        var now: Int64 = 0
        func counts(_ calls: some Sequence<(at: Int64, failed: Bool, slow: Bool)>) -> CallCounts {
            calls.reduce(into: CallCounts()) { $0.add(failed: $1.failed, slow: $1.slow) }
        }
        for _ in 0..<200 {
            now +=
                Int64.random(in: 0...10, using: &random) == 0
                ? Int64(size) * second : Int64.random(in: 0...600, using: &random) * millisecond
            let call = (at: now, failed: Bool.random(using: &random), slow: Bool.random(using: &random))
            calls.append(call)
            byCount.record(failed: call.failed, slow: call.slow, at: now)
            byTime.record(failed: call.failed, slow: call.slow, at: now)
            #expect(byCount.counts == counts(calls.suffix(size)), "seed \(seed)")
            let first = now / second - Int64(size) + 1
            #expect(byTime.counts(at: now) == counts(calls.filter { $0.at / second >= first }), "seed \(seed)")
            let later = now + Int64.random(in: 0...3_000, using: &random) * millisecond
            let firstLater = later / second - Int64(size) + 1
            #expect(byTime.counts(at: later) == counts(calls.filter { $0.at / second >= firstLater }), "seed \(seed)")
        }
    }

    /// Running calls against a list: never counted early, at most one bucket late.
    @Test(arguments: 0..<100)
    func runningCallsAgreeWithAList(seed: Int) {
        var random = SplitMix64(seed: UInt64(seed))
        let threshold = Int64.random(in: 1...300, using: &random) * millisecond
        let lease = threshold * Int64.random(in: 2...50, using: &random)
        var running = RunningCalls(isCounting: true, threshold: threshold, lease: lease)
        var calls: [Int64] = []
        var now = Int64.random(in: -1_000...1_000, using: &random) * millisecond
        for _ in 0..<300 {
            now += Int64.random(in: 0...(threshold / 2), using: &random)
            _ = running.advance(to: now)
            if Bool.random(using: &random) || calls.isEmpty {
                running.add(startedAt: now)
                calls.append(now)
            } else if Bool.random(using: &random) {
                running.remove(startedAt: calls.remove(at: Int.random(in: 0..<calls.count, using: &random)))
            }
            let ages = calls.map { now - $0 }
            let most = ages.count { $0 > threshold && $0 < lease + lease / 8 + threshold / 8 }
            let least = ages.count { $0 > threshold + threshold / 8 && $0 < lease }
            #expect((least...most).contains(running.overdue), "seed \(seed): \(least)...\(most), not \(running.overdue)")
        }
    }
}
