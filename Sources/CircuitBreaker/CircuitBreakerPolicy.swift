/// The settings as the machine reads them: nanoseconds instead of durations, and what the breaker was made with besides.
struct CircuitBreakerPolicy: Sendable {
    let window: CircuitBreakerConfiguration.Window
    let minimumNumberOfCalls: Int
    let failureRateThreshold: Double
    let slowCallRateThreshold: Double
    let slowCallDuration: Int64
    let countsRunningSlowCalls: Bool
    let permittedCallsInHalfOpen: Int
    let halfOpenFailureRateThreshold: Double
    let halfOpenSlowCallRateThreshold: Double
    /// `Int64.max` when there is no limit.
    let maximumTimeInHalfOpen: Int64
    let permitLease: Int64
    let waitInOpen: WaitInOpen
    let movesToHalfOpenByItself: Bool
    let hasRecovery: Bool
    let hasHealthCheck: Bool
    let healthCheckInterval: Int64
    /// 0 when there is no ramp.
    let rampDuration: Int64
    let rampInitialShare: Double
    let rejectionEventInterval: Int64

    init(_ configuration: CircuitBreakerConfiguration, hasRecovery: Bool, hasHealthCheck: Bool) {
        let values = configuration.values
        window = values.window
        minimumNumberOfCalls = values.minimumNumberOfCalls
        failureRateThreshold = values.failureRateThreshold
        slowCallRateThreshold = values.slowCallRateThreshold
        slowCallDuration = values.slowCallDurationThreshold.clampedNanoseconds
        countsRunningSlowCalls = values.countsRunningSlowCalls
        permittedCallsInHalfOpen = values.permittedCallsInHalfOpen
        halfOpenFailureRateThreshold = values.halfOpenFailureRateThreshold ?? values.failureRateThreshold
        halfOpenSlowCallRateThreshold = values.halfOpenSlowCallRateThreshold ?? values.slowCallRateThreshold
        maximumTimeInHalfOpen = values.maximumTimeInHalfOpen?.clampedNanoseconds ?? .max
        permitLease = values.permitLease.clampedNanoseconds
        waitInOpen = values.waitInOpen
        movesToHalfOpenByItself = values.movesToHalfOpenByItself
        self.hasRecovery = hasRecovery
        self.hasHealthCheck = hasHealthCheck
        healthCheckInterval = values.healthCheckInterval.clampedNanoseconds
        rampDuration = values.ramp?.duration.clampedNanoseconds ?? 0
        rampInitialShare = values.ramp?.initialShare ?? 1
        rejectionEventInterval = values.rejectionEventInterval.clampedNanoseconds
    }
}
