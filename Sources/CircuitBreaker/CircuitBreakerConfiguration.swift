/// How a breaker behaves. Values that make no sense are refused when the settings are made, with an error that names the field.
///
/// ```swift
/// let configuration = try CircuitBreakerConfiguration {
///     $0.window = .count(100)
///     $0.failureRateThreshold = 50
///     $0.slowCallDurationThreshold = .milliseconds(20)
///     $0.waitInOpen = .exponential(initial: .seconds(1), maximum: .seconds(30))
/// }
/// let stricter = try configuration.changing { $0.failureRateThreshold = 20 }
/// ```
@dynamicMemberLookup
public struct CircuitBreakerConfiguration: Sendable {
    /// The calls the rates are taken over.
    public enum Window: Sendable, Hashable {
        /// The last so many calls: 1 to 1,000,000. One byte each.
        case count(Int)
        /// The calls of the last so many seconds, in buckets of one second, the present one included: 1 to 3,600.
        case time(seconds: Int)
    }

    /// A share of traffic that grows back after a recovery.
    public struct Ramp: Sendable, Hashable {
        /// The time over which the share grows, evenly, from the initial share to the whole.
        public var duration: Duration
        /// The share let through at first: above 0, below 1.
        public var initialShare: Double

        /// A ramp over `duration` that begins with `initialShare` of the traffic.
        public init(duration: Duration, initialShare: Double = 0.1) {
            self.duration = duration
            self.initialShare = initialShare
        }
    }

    /// The fields. Rates are in percent, above 0 and at most 100; durations above 0 and at most 365 days unless their comment says otherwise.
    public struct Values: Sendable {
        /// The calls the rates are taken over.
        public var window: Window = .count(100)
        /// The calls that must be in the window before a rate counts: 1 to the window's size where it is count-based.
        public var minimumNumberOfCalls = 20
        /// Percent of failed calls at which the breaker opens.
        public var failureRateThreshold = 50.0
        /// Percent of slow calls at which the breaker opens.
        public var slowCallRateThreshold = 100.0
        /// A call that takes longer than this is slow.
        public var slowCallDurationThreshold: Duration = .seconds(60)
        /// Whether a call counts as slow from the moment it has run too long, before it has ended. It is seen at the next admit or record,
        /// within an eighth of the threshold. It needs a ``permitLease`` that is longer than the threshold.
        public var countsRunningSlowCalls = true
        /// Probes of half-open: 1 to 1,000.
        public var permittedCallsInHalfOpen = 10
        /// Percent of failed probes at which half-open goes back to open; nil takes ``failureRateThreshold``. Fewer, and it closes.
        public var halfOpenFailureRateThreshold: Double?
        /// Percent of slow probes at which half-open goes back to open; nil takes ``slowCallRateThreshold``.
        public var halfOpenSlowCallRateThreshold: Double?
        /// The longest time with probes in half-open before it goes back to open; nil sets no limit. The recovery has its own.
        public var maximumTimeInHalfOpen: Duration?
        /// The longest time a permit may be out. A probe that is out longer has failed, and its slot is spent: only what answers has
        /// recovered. In the other states a running call that is out longer is no longer counted as running.
        public var permitLease: Duration = .seconds(60)
        /// How long the breaker stays open, by the attempt.
        public var waitInOpen: WaitInOpen = .constant(.seconds(5))
        /// Whether a timer moves the breaker to half-open when the wait is over. Without it the first call does.
        public var movesToHalfOpenByItself = false
        /// The longest time of the recovery. Beyond it the breaker goes back to open.
        public var recoveryTimeLimit: Duration = .seconds(30)
        /// The time between two health checks, where there is one.
        public var healthCheckInterval: Duration = .seconds(1)
        /// The longest time of a health check. Beyond it the check has failed.
        public var healthCheckTimeLimit: Duration = .seconds(1)
        /// A share of traffic that grows back after half-open; nil lets the whole through at once.
        public var ramp: Ramp?
        /// Events kept for ``CircuitBreaker/recentEvents()``, of each of two kinds (changes of the breaker; single calls): 1 to 100,000.
        public var eventRingCapacity = 100
        /// Rejections are summed into one event per this time, the first at once; zero makes an event of each.
        public var rejectionEventInterval: Duration = .seconds(1)

        /// The defaults.
        public init() {}
    }

    let values: Values

    /// The defaults of ``Values``.
    public static let `default` = Self(unchecked: Values())

    /// Settings with these values.
    /// - Throws: ``CircuitBreakerConfigurationError``, naming the first field that makes no sense.
    public init(_ values: Values) throws(CircuitBreakerConfigurationError) {
        try values.check()
        self.values = values
    }

    /// The defaults with changes.
    /// - Throws: ``CircuitBreakerConfigurationError``, naming the first field that makes no sense.
    public init(_ change: (inout Values) -> Void) throws(CircuitBreakerConfigurationError) {
        var values = Values()
        change(&values)
        try self.init(values)
    }

    private init(unchecked values: Values) {
        self.values = values
    }

    /// These settings with changes.
    /// - Throws: ``CircuitBreakerConfigurationError``, naming the first field that makes no sense.
    public func changing(_ change: (inout Values) -> Void) throws(CircuitBreakerConfigurationError) -> Self {
        var values = values
        change(&values)
        return try Self(values)
    }

    /// A field's value.
    public subscript<Value>(dynamicMember field: KeyPath<Values, Value>) -> Value { values[keyPath: field] }
}

/// Settings that make no sense: which field, and what is wrong with it.
///
/// ```swift
/// do { _ = try CircuitBreakerConfiguration { $0.window = .count(0) } } catch { print(error.field) }  // window
/// ```
public struct CircuitBreakerConfigurationError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The field's name as in ``CircuitBreakerConfiguration/Values``, with a dot where it is inside another (`ramp.initialShare`).
    public let field: String
    /// What is wrong and what would be right.
    public let problem: String

    /// Field and problem in one line.
    public var description: String { "\(field): \(problem)" }
}

extension CircuitBreakerConfiguration.Values {
    func check() throws(CircuitBreakerConfigurationError) {
        switch window {
        case .count(let size):
            try require("window", (1...1_000_000).contains(size), "a count-based window holds 1 to 1000000 calls, not \(size)")
            try require(
                "minimumNumberOfCalls",
                minimumNumberOfCalls <= size,
                "\(minimumNumberOfCalls) calls never fit into a window of \(size), so the breaker could never open"
            )
        case .time(let seconds):
            try require("window", (1...3_600).contains(seconds), "a time-based window spans 1 to 3600 seconds, not \(seconds)")
        }
        try require(
            "minimumNumberOfCalls",
            (1...1_000_000_000).contains(minimumNumberOfCalls),
            "must be 1 to 1000000000, not \(minimumNumberOfCalls)"
        )
        try rate("failureRateThreshold", failureRateThreshold)
        try rate("slowCallRateThreshold", slowCallRateThreshold)
        try duration("slowCallDurationThreshold", slowCallDurationThreshold)
        try require(
            "permittedCallsInHalfOpen",
            (1...1_000).contains(permittedCallsInHalfOpen),
            "must be 1 to 1000, not \(permittedCallsInHalfOpen)"
        )
        if let halfOpenFailureRateThreshold { try rate("halfOpenFailureRateThreshold", halfOpenFailureRateThreshold) }
        if let halfOpenSlowCallRateThreshold { try rate("halfOpenSlowCallRateThreshold", halfOpenSlowCallRateThreshold) }
        if let maximumTimeInHalfOpen { try duration("maximumTimeInHalfOpen", maximumTimeInHalfOpen) }
        try duration("permitLease", permitLease)
        switch waitInOpen.kind {
        case .constant(let wait):
            try duration("waitInOpen", wait)
        case .exponential(let initial, let multiplier, let jitter, let maximum):
            try duration("waitInOpen.initial", initial)
            try duration("waitInOpen.maximum", maximum)
            try require("waitInOpen.maximum", maximum >= initial, "\(maximum) is less than the initial wait of \(initial)")
            try require("waitInOpen.multiplier", multiplier >= 1 && multiplier <= 1_000, "must be 1 to 1000, not \(multiplier)")
            try require("waitInOpen.jitter", jitter >= 0 && jitter <= 1, "must be 0 to 1, not \(jitter)")
        case .custom(let maximum, _):
            try duration("waitInOpen.maximum", maximum)
        }
        try duration("recoveryTimeLimit", recoveryTimeLimit)
        try duration("healthCheckInterval", healthCheckInterval)
        try duration("healthCheckTimeLimit", healthCheckTimeLimit)
        if let ramp {
            try duration("ramp.duration", ramp.duration)
            try require(
                "ramp.initialShare",
                ramp.initialShare > 0 && ramp.initialShare < 1,
                "must be above 0 and below 1, not \(ramp.initialShare)"
            )
        }
        try require("eventRingCapacity", (1...100_000).contains(eventRingCapacity), "must be 1 to 100000, not \(eventRingCapacity)")
        if rejectionEventInterval != .zero { try duration("rejectionEventInterval", rejectionEventInterval) }
    }

    // A comparison with NaN is false, so NaN is refused by every one of these.
    private func rate(_ field: String, _ percent: Double) throws(CircuitBreakerConfigurationError) {
        try require(field, percent > 0 && percent <= 100, "a rate is in percent, above 0 and at most 100, not \(percent)")
    }

    private func duration(_ field: String, _ duration: Duration) throws(CircuitBreakerConfigurationError) {
        try require(
            field,
            duration >= .nanoseconds(1_000) && duration <= .seconds(365 * 86_400),
            "must be between a microsecond and 365 days, not \(duration)"
        )
    }

    private func require(_ field: String, _ holds: Bool, _ problem: @autoclosure () -> String) throws(CircuitBreakerConfigurationError) {
        guard holds else { throw CircuitBreakerConfigurationError(field: field, problem: problem()) }
    }
}
