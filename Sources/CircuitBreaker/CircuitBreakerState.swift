/// What a breaker does with calls. The raw values are the names resilience4j prints.
///
/// ```swift
/// if breaker.state == .open { return cachedAnswer }
/// ```
public enum CircuitBreakerState: String, Sendable, Hashable, CaseIterable {
    /// Calls pass and are counted. Goes to ``open`` when a rate reaches its threshold.
    case closed = "CLOSED"
    /// Calls are rejected until the wait is over. Goes to ``halfOpen``.
    case open = "OPEN"
    /// The recovery runs, then a few probes pass. Goes to ``closed`` or back to ``open``.
    case halfOpen = "HALF_OPEN"
    /// By hand: every call passes, nothing is counted.
    case disabled = "DISABLED"
    /// By hand: every call is rejected.
    case forcedOpen = "FORCED_OPEN"
    /// By hand: every call passes and is counted, the breaker never opens.
    case metricsOnly = "METRICS_ONLY"
}

/// A change of state asked for by hand.
///
/// ```swift
/// breaker.transition(to: .forceOpen, by: "alice", reason: "maintenance")
/// ```
public enum ManualTransition: String, Sendable, Hashable, CaseIterable {
    /// To ``CircuitBreakerState/forcedOpen``.
    case forceOpen = "FORCE_OPEN"
    /// To ``CircuitBreakerState/disabled``.
    case disable = "DISABLE"
    /// To ``CircuitBreakerState/closed``: through the recovery when there is one (the state is then
    /// ``CircuitBreakerState/halfOpen`` while it runs, and no probe is asked for afterwards), at once when there is none.
    case close = "CLOSE"
    /// To ``CircuitBreakerState/metricsOnly``.
    case metricsOnly = "METRICS_ONLY"
    /// Clears the figures and the attempt, then does what ``close`` does. A closed breaker stays closed. Counters that only ever grow
    /// (``CircuitBreakerSnapshot/Totals``) keep their values.
    case reset = "RESET"
}
