@testable import CircuitBreaker

let millisecond: Int64 = 1_000_000
let second: Int64 = 1_000_000_000

func makeSettings(_ change: (inout CircuitBreakerConfiguration.Values) -> Void = { _ in }) throws -> CircuitBreakerConfiguration {
    try CircuitBreakerConfiguration { values in
        values.window = .count(10)
        values.minimumNumberOfCalls = 4
        values.permittedCallsInHalfOpen = 3
        values.slowCallDurationThreshold = .milliseconds(100)
        values.permitLease = .seconds(2)
        change(&values)
    }
}

func makeMachine(
    recovery: Bool = false,
    healthCheck: Bool = false,
    startsInRecovery: Bool = false,
    seed: UInt64 = 1,
    at now: Int64 = 0,
    _ change: (inout CircuitBreakerConfiguration.Values) -> Void = { _ in }
) throws -> CircuitBreakerMachine {
    CircuitBreakerMachine(
        policy: CircuitBreakerPolicy(try makeSettings(change), hasRecovery: recovery, hasHealthCheck: healthCheck),
        startsInRecovery: startsInRecovery,
        seed: seed,
        at: now
    )
}

extension Admission {
    var permit: Permit? { if case .permitted(let permit) = self { permit } else { nil } }
    var rejection: Rejection? { if case .rejected(let rejection) = self { rejection } else { nil } }
}

extension CircuitBreakerMachine {
    /// Admits and records at once; nil when rejected.
    @discardableResult
    mutating func call(_ outcome: CallOutcome, at now: Int64, lasting duration: Int64 = 0) -> RecordResult? {
        guard let permit = admit(at: now).0.permit else { return nil }
        return record(outcome, for: permit, at: now + duration).0
    }

    /// Fails so many calls that a closed breaker of ``makeSettings(_:)`` opens.
    mutating func fail(at now: Int64) {
        for _ in 0..<4 { call(.failure("refused"), at: now) }
    }

    var phaseName: String {
        switch phase {
        case .closed(let ramp): ramp.startedAt == nil ? "closed" : "ramping"
        case .open: "open"
        case .recovering(let recovery): recovery.closesDirectly ? "recoveringThenClosed" : "recovering"
        case .probing: "probing"
        case .disabled: "disabled"
        case .forcedOpen: "forcedOpen"
        case .metricsOnly: "metricsOnly"
        }
    }

    func snapshot(at now: Int64) -> CircuitBreakerSnapshot { snapshot(name: "test", unixMilliseconds: 0, at: now) }
}
