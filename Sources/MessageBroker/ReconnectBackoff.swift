/// How long to wait before the next attempt to connect. A value without clock or randomness of its own.
///
/// Bounds: a wait is between half of the current backoff and the whole of it; the backoff doubles with each failure from `minimum` to `maximum`. The count starts
/// again only after a connection lived for `maximum`, so a broker that accepts and drops is not hammered either.
struct ReconnectBackoff {
    let minimum: Duration
    let maximum: Duration
    private(set) var failures = 0
    private var readySince: ContinuousClock.Instant?

    init(minimum: Duration, maximum: Duration) {
        self.minimum = max(minimum, .milliseconds(1))
        self.maximum = max(maximum, self.minimum)
    }

    /// A connection is ready.
    mutating func connected(at now: ContinuousClock.Instant) { readySince = now }

    /// The attempt failed or the connection ended.
    ///
    /// - Parameter random: from 0 to 1.
    mutating func failed(at now: ContinuousClock.Instant, random: Double) -> Duration {
        if let readySince, now - readySince >= maximum { failures = 0 }
        readySince = nil
        var backoff = minimum
        // At most 40 doublings: a backoff is at least a millisecond.
        for _ in 0..<min(failures, 40) where backoff < maximum { backoff *= 2 }
        failures += 1
        backoff = min(backoff, maximum)
        return backoff - backoff / 2 * min(max(random, 0), 1)
    }
}
