#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#elseif canImport(Darwin)
    import Darwin
#endif

/// A point on a clock that never goes back, in nanoseconds since a fixed point that only the clock knows.
///
/// ```swift
/// let start = breaker.now()
/// let elapsed = start.duration(to: breaker.now())
/// ```
public struct CircuitBreakerInstant: Sendable, Hashable, Comparable {
    /// Nanoseconds since the clock's own zero.
    public let nanoseconds: Int64

    /// A point `nanoseconds` after the clock's own zero.
    @inlinable
    public init(nanoseconds: Int64) {
        self.nanoseconds = nanoseconds
    }

    /// Earlier before later.
    @inlinable
    public static func < (left: Self, right: Self) -> Bool { left.nanoseconds < right.nanoseconds }

    /// The time from this point to `other`, negative when `other` is earlier.
    public func duration(to other: Self) -> Duration { .nanoseconds(other.nanoseconds - nanoseconds) }

    /// This point moved by `duration`, held within what 64 bits of nanoseconds can say.
    public func advanced(by duration: Duration) -> Self { Self(nanoseconds: nanoseconds.addingClamped(duration.clampedNanoseconds)) }
}

/// Where a breaker takes its time from. Time never goes back.
///
/// ```swift
/// let breaker = CircuitBreaker(name: "stock", configuration: .default, clock: .monotonic)
/// ```
public protocol CircuitBreakerClock: Sendable {
    /// The present time. Called on every admit and record: it must be quick, and must not call the breaker.
    func now() -> CircuitBreakerInstant

    /// Returns when ``now()`` has reached `instant`. Throws `CancellationError` when the task is cancelled.
    func sleep(until instant: CircuitBreakerInstant) async throws
}

/// The system's monotonic clock. A read costs about 25 ns on Linux.
///
/// ```swift
/// let breaker = CircuitBreaker(name: "stock", clock: .monotonic)
/// ```
public struct MonotonicCircuitBreakerClock: CircuitBreakerClock {
    /// The system's monotonic clock.
    public init() {}

    /// The present time.
    public func now() -> CircuitBreakerInstant { CircuitBreakerInstant(nanoseconds: readClock(CLOCK_MONOTONIC)) }

    /// Sleeps until `instant`.
    public func sleep(until instant: CircuitBreakerInstant) async throws { try await sleepOnSystemClock(until: instant, now: now) }
}

/// The system's monotonic clock as of its last tick: a read costs about 6 ns on Linux, and lags by at most ``resolution`` (1 to 10 ms).
///
/// ```swift
/// let breaker = CircuitBreaker(name: "stock", clock: .coarse)
/// ```
public struct CoarseCircuitBreakerClock: CircuitBreakerClock {
    /// The longest time by which a read may lag.
    public static let resolution: Duration = {
        var value = timespec()
        guard clock_getres(coarseClock, &value) == 0 else { return .milliseconds(10) }
        return .nanoseconds(Int64(value.tv_sec) * 1_000_000_000 + Int64(value.tv_nsec))
    }()

    /// The system's coarse monotonic clock.
    public init() {}

    /// The present time, as of the last tick.
    public func now() -> CircuitBreakerInstant { CircuitBreakerInstant(nanoseconds: readClock(coarseClock)) }

    /// Sleeps until `instant`.
    public func sleep(until instant: CircuitBreakerInstant) async throws { try await sleepOnSystemClock(until: instant, now: now) }
}

extension CircuitBreakerClock where Self == MonotonicCircuitBreakerClock {
    /// The system's monotonic clock, about 25 ns a read.
    public static var monotonic: Self { Self() }
}

extension CircuitBreakerClock where Self == CoarseCircuitBreakerClock {
    /// The system's monotonic clock as of its last tick, about 6 ns a read.
    public static var coarse: Self { Self() }
}

/// The clock a breaker reads. A system clock is kept as its `clockid_t`, so that a read avoids the copy and the dynamic call of an existential.
struct ClockSource: Sendable {
    /// Of no meaning where there is a custom clock.
    private let system: clockid_t
    private let isCustom: Bool
    private let custom: (any CircuitBreakerClock)?

    init(_ clock: (any CircuitBreakerClock)?, slowCallDurationThreshold: Duration) {
        switch clock {
        case .none:
            // The coarse clock's lag is harmless where it is a small part of what is measured.
            system = CoarseCircuitBreakerClock.resolution * 10 <= slowCallDurationThreshold ? coarseClock : CLOCK_MONOTONIC
            custom = nil
        case .some(is CoarseCircuitBreakerClock):
            system = coarseClock
            custom = nil
        case .some(is MonotonicCircuitBreakerClock):
            system = CLOCK_MONOTONIC
            custom = nil
        case .some(let clock):
            system = CLOCK_MONOTONIC
            custom = clock
        }
        isCustom = custom != nil
    }

    @inline(__always)
    func now() -> Int64 { isCustom ? customNow() : readClock(system) }

    @inline(never)
    private func customNow() -> Int64 { custom?.now().nanoseconds ?? readClock(system) }

    func sleep(until instant: Int64) async throws {
        let instant = CircuitBreakerInstant(nanoseconds: instant)
        if let custom { return try await custom.sleep(until: instant) }
        try await sleepOnSystemClock(until: instant) { CircuitBreakerInstant(nanoseconds: readClock(system)) }
    }
}

#if os(Linux)
    private let coarseClock = CLOCK_MONOTONIC_COARSE
#else
    private let coarseClock = CLOCK_MONOTONIC
#endif

@inline(__always)
private func readClock(_ id: clockid_t) -> Int64 {
    var value = timespec()
    // The call fails only for an unknown clock, and all clocks used here are known.
    _ = clock_gettime(id, &value)
    return Int64(value.tv_sec) &* 1_000_000_000 &+ Int64(value.tv_nsec)
}

/// Milliseconds since 1970 by the system's wall clock.
@Sendable
public func systemUnixMilliseconds() -> Int64 { readClock(CLOCK_REALTIME) / 1_000_000 }

/// Stops when the clock has reached the point, or by cancellation. At least a millisecond is slept at a time, for a coarse clock lags.
private func sleepOnSystemClock(until instant: CircuitBreakerInstant, now: () -> CircuitBreakerInstant) async throws {
    while true {
        let remaining = instant.nanoseconds.subtractingClamped(now().nanoseconds)
        guard remaining > 0 else { return try Task.checkCancellation() }
        try await Task.sleep(nanoseconds: UInt64(max(remaining, 1_000_000)))
    }
}

extension Int64 {
    func addingClamped(_ other: Int64) -> Int64 {
        let (sum, overflow) = addingReportingOverflow(other)
        return overflow ? (other > 0 ? .max : .min) : sum
    }

    func subtractingClamped(_ other: Int64) -> Int64 {
        let (difference, overflow) = subtractingReportingOverflow(other)
        return overflow ? (other < 0 ? .max : .min) : difference
    }
}

extension Duration {
    /// Whole nanoseconds, held within 64 bits.
    var clampedNanoseconds: Int64 {
        let (seconds, attoseconds) = components
        let (scaled, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        if overflow { return seconds > 0 ? .max : .min }
        return scaled.addingClamped(attoseconds / 1_000_000_000)
    }
}
