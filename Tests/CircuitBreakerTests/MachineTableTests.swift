import Testing

@testable import CircuitBreaker

/// Every phase of every state with every event, and where it leads.
@Suite struct MachineTableTests {
    enum Start: String, CaseIterable {
        case closed, ramping, openWaiting, openElapsed, recovering, recoveringThenClosed, probing, disabled, forcedOpen, metricsOnly
    }

    enum Event: String, CaseIterable {
        case admit, success, lastFailure, ignored, cancelled, lateResult, recoveryPassed, recoveryFailed, recoveryTimedOut,
            staleRecoveryPassed
        case deadline, healthy, unhealthy, forceOpen, disable, close, metricsOnly, reset
    }

    static let now = 100 * second

    /// A machine with a recovery in the phase, and a permit of that phase where it gives one. In closed, ramping, metrics-only and probing one
    /// more failure reaches the failure rate, and one more success does not.
    static func machine(in start: Start, recovery: Bool, healthCheck: Bool) throws -> (CircuitBreakerMachine, Permit?) {
        var machine = try makeMachine(recovery: recovery, healthCheck: healthCheck, at: now - 50 * second) {
            $0.ramp = .init(duration: .seconds(10), initialShare: 0.5)
            $0.permittedCallsInHalfOpen = 2
        }
        /// Of these and one more failure half are failures, of these and one more success a quarter.
        let almost: [CallOutcome] = [.success, .success, .failure("refused")]
        func openMachine(at time: Int64) { machine.fail(at: time) }
        func passRecovery(at time: Int64) { _ = machine.recoveryPassed(run: machine.generation, at: time) }
        switch start {
        case .closed:
            for outcome in almost { machine.call(outcome, at: now) }
        case .ramping:
            openMachine(at: now - 5 * second)
            if recovery {
                _ = machine.admit(at: now)
                passRecovery(at: now)
            }
            for _ in 0..<2 { machine.call(.success, at: now) }
            #expect(machine.phaseName == "ramping")
            for outcome in almost { while machine.call(outcome, at: now) == nil {} }
            var permit = machine.admit(at: now).0.permit
            while permit == nil { permit = machine.admit(at: now).0.permit }
            return (machine, permit)
        case .openWaiting:
            openMachine(at: now)
        case .openElapsed:
            openMachine(at: now - 5 * second)
        case .recovering:
            openMachine(at: now - 5 * second)
            _ = machine.admit(at: now)
        case .recoveringThenClosed:
            _ = machine.transition(to: .forceOpen, by: nil, reason: nil, at: now)
            _ = machine.transition(to: .close, by: nil, reason: nil, at: now)
        case .probing:
            openMachine(at: now - 5 * second)
            if recovery {
                _ = machine.admit(at: now)
                passRecovery(at: now)
            }
            let permit = machine.admit(at: now).0.permit
            return (machine, permit)
        case .disabled:
            _ = machine.transition(to: .disable, by: nil, reason: nil, at: now)
        case .forcedOpen:
            _ = machine.transition(to: .forceOpen, by: nil, reason: nil, at: now)
        case .metricsOnly:
            _ = machine.transition(to: .metricsOnly, by: nil, reason: nil, at: now)
            for outcome in almost { machine.call(outcome, at: now) }
        }
        guard [.closed, .disabled, .metricsOnly].contains(start) else { return (machine, nil) }
        let permit = machine.admit(at: now).0.permit
        return (machine, permit)
    }

    /// Where each event leads that leads anywhere, in a breaker with a recovery. What is not listed changes no phase.
    static let changes: [Start: [Event: String]] = [
        .closed: [.lastFailure: "open", .forceOpen: "forcedOpen", .disable: "disabled", .metricsOnly: "metricsOnly"],
        .ramping: [
            .lastFailure: "open", .forceOpen: "forcedOpen", .disable: "disabled", .metricsOnly: "metricsOnly", .reset: "closed",
        ],
        .openWaiting: [
            .forceOpen: "forcedOpen", .disable: "disabled", .metricsOnly: "metricsOnly", .close: "recoveringThenClosed",
            .reset: "recoveringThenClosed",
        ],
        .openElapsed: [
            .admit: "recovering", .forceOpen: "forcedOpen", .disable: "disabled", .metricsOnly: "metricsOnly",
            .close: "recoveringThenClosed",
            .reset: "recoveringThenClosed",
        ],
        .recovering: [
            .recoveryPassed: "probing", .recoveryFailed: "open", .recoveryTimedOut: "open", .forceOpen: "forcedOpen", .disable: "disabled",
            .metricsOnly: "metricsOnly", .close: "recoveringThenClosed", .reset: "recoveringThenClosed",
        ],
        .recoveringThenClosed: [
            .recoveryPassed: "ramping", .recoveryFailed: "open", .recoveryTimedOut: "open", .forceOpen: "forcedOpen", .disable: "disabled",
            .metricsOnly: "metricsOnly",
        ],
        .probing: [
            .lastFailure: "open", .forceOpen: "forcedOpen", .disable: "disabled", .metricsOnly: "metricsOnly", .close: "closed",
            .reset: "closed",
        ],
        .disabled: [.forceOpen: "forcedOpen", .metricsOnly: "metricsOnly", .close: "recoveringThenClosed", .reset: "recoveringThenClosed"],
        .forcedOpen: [.disable: "disabled", .metricsOnly: "metricsOnly", .close: "recoveringThenClosed", .reset: "recoveringThenClosed"],
        .metricsOnly: [.forceOpen: "forcedOpen", .disable: "disabled", .close: "recoveringThenClosed", .reset: "recoveringThenClosed"],
    ]

    /// Without a recovery, what led to it leads past it.
    static func expected(_ start: Start, _ event: Event, recovery: Bool) -> String {
        let same = start == .openWaiting || start == .openElapsed ? "open" : start.rawValue
        let next = changes[start]?[event] ?? same
        if recovery { return next }
        switch next {
        case "recovering": return "probing"
        case "recoveringThenClosed": return "closed"
        default: return next
        }
    }

    @Test(arguments: Start.allCases, Event.allCases)
    func withRecovery(start: Start, event: Event) throws { try check(start, event, recovery: true) }

    @Test(arguments: Start.allCases.filter { $0 != .recovering && $0 != .recoveringThenClosed }, Event.allCases)
    func withoutRecovery(start: Start, event: Event) throws { try check(start, event, recovery: false) }

    func check(_ start: Start, _ event: Event, recovery: Bool) throws {
        var (machine, permit) = try Self.machine(in: start, recovery: recovery, healthCheck: false)
        let now = Self.now
        let before = machine
        var hasStarted = false
        machine.takePendingEvents { _ in }
        func act(_ action: CircuitBreakerMachine.Action) { if case .startRecovery = action { hasStarted = true } }
        func record(_ outcome: CallOutcome) { if let permit { act(machine.record(outcome, for: permit, at: now).1) } }
        switch event {
        case .admit:
            let (admission, action) = machine.admit(at: now)
            act(action)
            switch start {
            case .closed, .disabled, .metricsOnly, .probing: #expect(admission.permit != nil)
            case .openElapsed: #expect((admission.permit != nil) == !recovery)
            case .ramping: break
            case .openWaiting, .recovering, .recoveringThenClosed, .forcedOpen: #expect(admission.permit == nil)
            }
            if start == .openWaiting { #expect(admission.rejection?.retryAfter == .seconds(5)) }
        case .success: record(.success)
        case .lastFailure: record(.failure("refused"))
        case .ignored: record(.ignored)
        case .cancelled: record(.cancelled)
        case .lateResult:
            let stale = Permit(
                generation: machine.generation - 1,
                startedAt: CircuitBreakerInstant(nanoseconds: now),
                slot: permit?.slot ?? -1,
                serial: permit?.serial ?? 0
            )
            let (result, action) = machine.record(.failure("refused"), for: stale, at: now)
            act(action)
            // The first generation's predecessor is 0, which is what is not recorded at all.
            #expect(result == (machine.generation == 1 ? .notRecorded : .late))
            #expect(machine.snapshot(at: now).bufferedCalls == before.snapshot(at: now).bufferedCalls)
        case .recoveryPassed: act(machine.recoveryPassed(run: machine.generation, at: now))
        case .staleRecoveryPassed: act(machine.recoveryPassed(run: machine.generation - 1, at: now))
        case .recoveryFailed: act(machine.recoveryFailed(run: machine.generation, failure: .failed(label: "refused"), at: now))
        case .recoveryTimedOut: act(machine.recoveryFailed(run: machine.generation, failure: .timedOut, at: now))
        case .deadline: act(machine.hitDeadline(at: now))
        case .healthy: act(machine.healthCheckAnswered(run: machine.generation, healthy: true, at: now))
        case .unhealthy: act(machine.healthCheckAnswered(run: machine.generation, healthy: false, at: now))
        case .forceOpen: act(machine.transition(to: .forceOpen, by: "a", reason: "b", at: now))
        case .disable: act(machine.transition(to: .disable, by: "a", reason: "b", at: now))
        case .close: act(machine.transition(to: .close, by: "a", reason: "b", at: now))
        case .metricsOnly: act(machine.transition(to: .metricsOnly, by: "a", reason: "b", at: now))
        case .reset: act(machine.transition(to: .reset, by: "a", reason: "b", at: now))
        }
        let expected = Self.expected(start, event, recovery: recovery)
        #expect(machine.phaseName == expected, "\(start) with \(event)")
        let entersRecovery = expected.hasPrefix("recovering") && !before.phaseName.hasPrefix("recovering")
        #expect(hasStarted == entersRecovery, "the recovery is started exactly when it is entered: \(start) with \(event)")
        if machine.state != before.state {
            #expect(machine.generation > before.generation)
            var transitions: [CircuitBreakerEvent.Kind] = []
            machine.takePendingEvents { if case .transition = $0.kind { transitions.append($0.kind) } }
            #expect(transitions.count == 1)
        }
    }

    @Test(arguments: [true, false])
    func healthCheckMovesAnOpenBreakerOn(healthy: Bool) throws {
        var (machine, _) = try Self.machine(in: .openElapsed, recovery: true, healthCheck: true)
        #expect(machine.nextWake == Self.now)
        #expect(machine.hitDeadline(at: Self.now) == .startHealthCheck(run: machine.generation))
        #expect(machine.nextWake == nil, "one check at a time")
        #expect(machine.hitDeadline(at: Self.now) == .none)
        let run = machine.generation
        let action = machine.healthCheckAnswered(run: run, healthy: healthy, at: Self.now)
        #expect(action == (healthy ? .startRecovery(run: machine.generation) : .publish))
        #expect(machine.phaseName == (healthy ? "recovering" : "open"))
        #expect(machine.nextWake == (healthy ? nil : Self.now + second))
    }

    @Test func healthChecksAreTheProbesWhereThereIsNoTraffic() throws {
        var (machine, _) = try Self.machine(in: .openElapsed, recovery: false, healthCheck: true)
        var now = Self.now
        _ = machine.hitDeadline(at: now)
        _ = machine.healthCheckAnswered(run: machine.generation, healthy: true, at: now)
        #expect(machine.phaseName == "probing")
        for _ in 0..<2 {
            now = try #require(machine.nextWake)
            #expect(machine.hitDeadline(at: now) == .startHealthCheck(run: machine.generation))
            _ = machine.healthCheckAnswered(run: machine.generation, healthy: true, at: now)
        }
        #expect(machine.state == .closed)
    }
}
