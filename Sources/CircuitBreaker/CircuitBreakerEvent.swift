/// Something that happened to a breaker.
///
/// ```swift
/// for await event in breaker.events {
///     log.info("\(event.breaker): \(event.kind)")
/// }
/// ```
public struct CircuitBreakerEvent: Sendable, Hashable {
    /// What happened.
    public enum Kind: Sendable, Hashable {
        /// The state changed.
        case transition(from: CircuitBreakerState, to: CircuitBreakerState, reason: TransitionReason)
        /// A counted call failed.
        case error(label: String, duration: Duration)
        /// A counted call took longer than its threshold.
        case slowCall(duration: Duration, failed: Bool)
        /// Calls were rejected, so many since the last event of this kind.
        case callsRejected(count: UInt64)
        /// A probe did not come back within its lease and counts as failed.
        case permitLeaseEnded
        /// The recovery was started, at this attempt.
        case recoveryStarted(attempt: Int)
        /// The recovery succeeded.
        case recoveryPassed(duration: Duration)
        /// The recovery failed or took too long.
        case recoveryFailed(label: String, duration: Duration)
        /// A health check was answered.
        case healthCheck(passed: Bool)
        /// In ``CircuitBreakerState/metricsOnly``: the failure rate reached its threshold.
        case failureRateReached(percent: Double)
        /// In ``CircuitBreakerState/metricsOnly``: the slow-call rate reached its threshold.
        case slowCallRateReached(percent: Double)
        /// The whole traffic passes again.
        case rampEnded
        /// Someone asked to close while the recovery was running: it closes when the recovery passes.
        case closeRequested(by: String?, reason: String?)
        /// The figures were cleared by hand.
        case reset(by: String?, reason: String?)
    }

    /// The breaker's name.
    public let breaker: String
    /// 1 for a breaker's first event, one more for each. A gap tells a reader that it has missed some.
    public let sequence: UInt64
    /// When, by the breaker's clock.
    public let instant: CircuitBreakerInstant
    /// When, in milliseconds since 1970 by the wall clock.
    public let unixMilliseconds: Int64
    /// What happened.
    public let kind: Kind
}

/// Why the state changed.
///
/// ```swift
/// if case .transition(_, .open, let reason) = event.kind { alert("open: \(reason)") }
/// ```
public enum TransitionReason: Sendable, Hashable {
    /// So many percent of the calls failed.
    case failureRate(percent: Double)
    /// So many percent of the calls were slow.
    case slowCallRate(percent: Double)
    /// The wait in open is over.
    case waitElapsed
    /// A health check passed while open.
    case healthCheckPassed
    /// The recovery failed.
    case recoveryFailed(label: String)
    /// The recovery took too long.
    case recoveryTimedOut
    /// The recovery passed, and closing after it had been asked for.
    case recoveryPassed
    /// Enough probes succeeded.
    case probesSucceeded
    /// Half-open took too long.
    case halfOpenTimedOut
    /// The breaker has just been made, and starts behind its recovery.
    case startup
    /// By hand.
    case manual(by: String?, reason: String?)
}

extension CircuitBreakerEvent.Kind {
    /// The name of the kind: resilience4j's where it has one.
    public var name: String {
        switch self {
        case .transition: "STATE_TRANSITION"
        case .error: "ERROR"
        case .slowCall: "SLOW_CALL"
        case .callsRejected: "NOT_PERMITTED"
        case .permitLeaseEnded: "PERMIT_LEASE_ENDED"
        case .recoveryStarted: "RECOVERY_GATE_STARTED"
        case .recoveryPassed: "RECOVERY_GATE_PASSED"
        case .recoveryFailed: "RECOVERY_GATE_FAILED"
        case .healthCheck: "HEALTH_CHECK"
        case .failureRateReached: "FAILURE_RATE_EXCEEDED"
        case .slowCallRateReached: "SLOW_CALL_RATE_EXCEEDED"
        case .rampEnded: "RAMP_ENDED"
        case .closeRequested: "CLOSE_REQUESTED"
        case .reset: "RESET"
        }
    }

    /// Whether it is about one call rather than the breaker. Those are kept in a ring of their own, so that a flood of errors does not
    /// push the transition that followed them out.
    var isAboutCalls: Bool {
        switch self {
        case .error, .slowCall, .callsRejected: true
        default: false
        }
    }
}

extension TransitionReason: CustomStringConvertible {
    /// The reason in a few words.
    public var description: String {
        switch self {
        case .failureRate(let percent): "failure rate \(oneDecimal(percent))%"
        case .slowCallRate(let percent): "slow-call rate \(oneDecimal(percent))%"
        case .waitElapsed: "wait elapsed"
        case .healthCheckPassed: "health check passed"
        case .recoveryFailed(let label): "recovery gate failed: \(label)"
        case .recoveryTimedOut: "recovery gate timed out"
        case .recoveryPassed: "recovery gate passed"
        case .probesSucceeded: "probes succeeded"
        case .halfOpenTimedOut: "half-open took too long"
        case .startup: "start-up"
        case .manual(let by, let reason): "by hand" + (by.map { " (\($0))" } ?? "") + (reason.map { ": \($0)" } ?? "")
        }
    }
}

/// A percentage between 0 and 100 with one decimal, without a locale.
private func oneDecimal(_ percent: Double) -> String {
    let tenths = Int((percent * 10).rounded())
    return "\(tenths / 10).\(tenths % 10)"
}

extension String {
    /// Cut at 200 bytes of UTF-8, so that an event's size has a bound. Never in the middle of a character.
    var cut: String {
        guard utf8.count > 200 else { return self }
        var end = utf8.index(startIndex, offsetBy: 200)
        while end > startIndex, end.samePosition(in: self) == nil { end = utf8.index(before: end) }
        return String(self[..<end])
    }
}
