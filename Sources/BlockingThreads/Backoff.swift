/// How long to wait between attempts that fail one after the other. A value without clock or randomness of its own.
///
/// Bounds: the wait doubles with each failure from `minimum`, which is a millisecond or more, to `maximum`; chance takes off at most the part `jitter` of it.
public struct Backoff: Sendable, Hashable {
    /// The whole wait after the first failure.
    public let minimum: Duration
    /// The longest wait.
    public let maximum: Duration
    /// The largest part of a wait that chance takes off, from 0 to 1, so that many clients come back at different moments.
    public let jitter: Double

    /// Makes a back-off; a `maximum` below the `minimum` counts as the `minimum`.
    public init(minimum: Duration, maximum: Duration, jitter: Double = 0) {
        self.minimum = max(minimum, .milliseconds(1))
        self.maximum = max(maximum, self.minimum)
        self.jitter = min(max(jitter, 0), 1)
    }

    /// The wait before the next attempt.
    ///
    /// - Parameters:
    ///   - failures: attempts that had failed before the one that failed just now.
    ///   - random: from 0 to 1; what lies outside counts as the nearer end.
    public func wait(after failures: Int, random: Double) -> Duration {
        let wait = wholeWait(after: failures)
        return wait - wait * (jitter * min(max(random, 0), 1))
    }

    /// The wait before the next attempt, from which chance takes nothing off.
    ///
    /// - Parameter failures: attempts that had failed before the one that failed just now.
    public func wholeWait(after failures: Int) -> Duration {
        var wait = minimum
        // At most 40 doublings: a wait is at least a millisecond, and 40 of them pass every maximum that is meant.
        for _ in 0..<max(0, min(failures, 40)) where wait < maximum { wait *= 2 }
        return min(wait, maximum)
    }
}

/// The back-off of a connection that is opened again and again: a ``Backoff`` and the count of failures.
///
/// The count starts again only after a connection has lived for `maximum`. So a server that takes each connection and ends it at once is given pauses too.
public struct ReconnectBackoff: Sendable {
    /// The waits.
    public let backoff: Backoff
    /// Failures in a row.
    public private(set) var failures = 0
    private var readySince: ContinuousClock.Instant?

    /// Makes one without failures, whose waits chance shortens by up to half.
    public init(minimum: Duration, maximum: Duration) {
        backoff = Backoff(minimum: minimum, maximum: maximum, jitter: 0.5)
    }

    /// A connection is ready.
    public mutating func connected(at now: ContinuousClock.Instant) { readySince = now }

    /// The attempt failed or the connection ended.
    ///
    /// - Parameter random: from 0 to 1.
    /// - Returns: the wait before the next attempt.
    public mutating func failed(at now: ContinuousClock.Instant, random: Double) -> Duration {
        if let readySince, now - readySince >= backoff.maximum { failures = 0 }
        readySince = nil
        defer { failures += 1 }
        return backoff.wait(after: failures, random: random)
    }
}
