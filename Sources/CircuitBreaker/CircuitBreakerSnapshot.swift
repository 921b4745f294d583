/// All figures of a breaker at one moment, consistent with each other. Taking one changes nothing.
///
/// ```swift
/// let figures = breaker.snapshot()
/// print(figures.state.rawValue, figures.failureRate ?? -1, figures.totals.notPermitted)
/// ```
public struct CircuitBreakerSnapshot: Sendable, Hashable {
    /// Counters that only grow, since the breaker was made.
    public struct Totals: Sendable, Hashable {
        /// Counted calls that succeeded.
        public internal(set) var succeeded: UInt64 = 0
        /// Counted calls that failed, probes whose lease ended included.
        public internal(set) var failed: UInt64 = 0
        /// The time that calls which succeeded have taken, together.
        public var succeededDuration: Duration { .nanoseconds(succeededNanoseconds) }
        /// The time that calls which failed have taken, together; without probes whose lease ended.
        public var failedDuration: Duration { .nanoseconds(failedNanoseconds) }
        // 292 years of calls fit.
        var succeededNanoseconds: Int64 = 0
        var failedNanoseconds: Int64 = 0
        /// Counted calls that were slow, failed or not.
        public internal(set) var slow: UInt64 = 0
        /// Calls whose outcome was ignored or cancelled.
        public internal(set) var excluded: UInt64 = 0
        /// Rejected calls.
        public internal(set) var notPermitted: UInt64 = 0
        /// Results that came after their state, their lease or their first recording.
        public internal(set) var lateResults: UInt64 = 0
        /// Probes whose lease ended.
        public internal(set) var endedLeases: UInt64 = 0
        /// Changes to ``CircuitBreakerState/open``.
        public internal(set) var openings: UInt64 = 0
    }

    /// The breaker's name.
    public let name: String
    /// The state.
    public let state: CircuitBreakerState
    /// Grows with every change of state.
    public let generation: UInt64
    /// Percent of the buffered calls that failed; nil while fewer than the minimum are buffered.
    public let failureRate: Double?
    /// Percent of the buffered and the too long running calls that are slow; nil while those are fewer than the minimum.
    public let slowCallRate: Double?
    /// Calls in the window; in half-open the probes that have ended; in open those of the state that opened it.
    public let bufferedCalls: Int
    /// Those of them that failed.
    public let failedCalls: Int
    /// Those of them that were slow.
    public let slowCalls: Int
    /// Those of them that were both.
    public let slowFailedCalls: Int
    /// Calls that are still running and have been for too long.
    public let runningSlowCalls: Int
    /// Calls rejected since the present state was entered.
    public let notPermittedCalls: UInt64
    /// Percent of failed calls at which the breaker opens, in the present state.
    public let failureRateThreshold: Double
    /// Percent of slow calls at which the breaker opens, in the present state.
    public let slowCallRateThreshold: Double
    /// The time left of the wait, zero when it is over; nil unless the state is open.
    public let openRemaining: Duration?
    /// The end of the wait by the breaker's clock; nil unless the state is open.
    public let openUntil: CircuitBreakerInstant?
    /// The end of the wait in milliseconds since 1970; nil unless the state is open.
    public let openUntilUnixMilliseconds: Int64?
    /// Openings in a row without a recovery; 0 when closed.
    public let attempt: Int
    /// Whether the recovery is running.
    public let isRecoveryRunning: Bool
    /// Probes half-open lets through in all.
    public let permittedCallsInHalfOpen: Int
    /// Probes that may still be handed out; 0 unless probes are let through.
    public let remainingProbes: Int
    /// Probes that are out; 0 outside half-open.
    public let probesInFlight: Int
    /// The share of the traffic let through while it grows back, nil when there is no ramp.
    public let rampShare: Double?
    /// When it was taken, by the breaker's clock.
    public let instant: CircuitBreakerInstant
    /// When it was taken, in milliseconds since 1970.
    public let unixMilliseconds: Int64
    /// Counters that only grow.
    public let totals: Totals
    /// Events that a subscriber's full buffer dropped, and subscriptions that were refused, since the breaker was made.
    public internal(set) var droppedEvents: UInt64 = 0
    /// Subscriptions that were refused because there were too many.
    public internal(set) var refusedSubscriptions: UInt64 = 0

    /// Those of the buffered calls that succeeded.
    public var successfulCalls: Int { bufferedCalls - failedCalls }
}
