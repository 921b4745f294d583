/// The answer to ``CircuitBreaker/admit()``.
///
/// ```swift
/// switch breaker.admit() {
/// case .permitted(let permit):
///     let answer = await call()
///     breaker.record(answer.isTrouble ? .failure("refused") : .success, for: permit)
/// case .rejected(let rejection):
///     reply(.serviceUnavailable, retryAfter: rejection.retryAfter)
/// }
/// ```
public enum Admission: Sendable, Hashable {
    /// The call may be made. Record its outcome once.
    case permitted(Permit)
    /// The call must not be made. There is nothing to record.
    case rejected(Rejection)
}

/// Leave to make one call. Hand it back with ``CircuitBreaker/record(_:for:)`` once.
///
/// A permit is stamped with the generation it was given in. When the breaker has changed its state since, recording it changes nothing.
/// In half-open a permit holds one of the few probe slots for at most ``CircuitBreakerConfiguration/Values/permitLease``.
///
/// ```swift
/// guard case .permitted(let permit) = breaker.admit() else { return fallback() }
/// defer { breaker.record(.success, for: permit) }
/// ```
public struct Permit: Sendable, Hashable {
    /// The generation that gave it; 0 where nothing is recorded.
    let generation: UInt64
    /// When it was given.
    public let startedAt: CircuitBreakerInstant
    /// Its slot among the probes of half-open, -1 outside it.
    let slot: Int
    /// Its own number within the slot. When the slot has gone to another permit, the number tells their results apart.
    let serial: UInt64

    /// Whether it is one of the probes of half-open.
    public var isProbe: Bool { slot >= 0 }
}

/// Why and for how long a call was turned away.
///
/// ```swift
/// if case .rejected(let rejection) = breaker.admit() { log.info("\(rejection.reason), again in \(rejection.retryAfter ?? .zero)") }
/// ```
public struct Rejection: Sendable, Hashable {
    /// Why a call was turned away.
    public enum Reason: String, Sendable, Hashable, CaseIterable {
        /// The breaker waits in ``CircuitBreakerState/open``.
        case open = "OPEN"
        /// The breaker was opened by hand.
        case forcedOpen = "FORCED_OPEN"
        /// Half-open, and the recovery has not passed yet.
        case recovery = "RECOVERY_GATE"
        /// Half-open, and all probes are taken.
        case probesTaken = "PROBES_TAKEN"
        /// The breaker is closed again, and this call is outside the share that the ramp lets through.
        case ramp = "RAMP"
    }

    /// The state that turned the call away.
    public let state: CircuitBreakerState
    /// Why the call was turned away.
    public let reason: Reason
    /// Nanoseconds until it may be worth asking again, -1 when that is not known.
    let retryAfterNanoseconds: Int64

    /// How long until it may be worth asking again; nil when that is not known (opened by hand, half-open, ramp).
    public var retryAfter: Duration? { retryAfterNanoseconds < 0 ? nil : .nanoseconds(retryAfterNanoseconds) }

    init(state: CircuitBreakerState, reason: Reason, retryAfterNanoseconds: Int64 = -1) {
        self.state = state
        self.reason = reason
        self.retryAfterNanoseconds = retryAfterNanoseconds
    }
}

/// What ``CircuitBreaker/run(classify:_:)`` throws when the breaker turns the call away.
///
/// ```swift
/// do { try await breaker.run { try await call() } } catch let error as CircuitBreakerRejected { return fallback(error.rejection) }
/// ```
public struct CircuitBreakerRejected: Error, Sendable, Hashable, CustomStringConvertible {
    /// The breaker's name.
    public let name: String
    /// Why and for how long.
    public let rejection: Rejection

    /// One line for a log.
    public var description: String {
        "circuit breaker \(name) is \(rejection.state.rawValue) and rejected the call (\(rejection.reason.rawValue))"
    }
}
