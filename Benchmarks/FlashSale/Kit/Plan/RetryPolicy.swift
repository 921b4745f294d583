public import SeededRandom

/// When a buyer who got no clear answer asks again with the same key.
///
/// Bounds: `limit` repeats; a wait doubles from 50 ms to at most 2 s, jittered over its upper half; a `Retry-After`
/// is honoured up to 5 s. At the bound the buyer gives up and is counted as an error.
public struct RetryPolicy: Equatable, Sendable {
    /// Repeats after the first attempt.
    public let limit: Int

    /// - Parameter limit: repeats after the first attempt, 0 or more.
    public init(limit: Int) {
        self.limit = limit
    }

    /// The wait before the next attempt, nil to give up.
    /// - Parameters:
    ///   - attempt: the attempt that just failed, from 1.
    ///   - retryAfter: what the server asked for.
    public func wait(afterAttempt attempt: Int, retryAfter: Duration?, using generator: inout SplitMix64) -> Duration? {
        guard attempt <= limit else { return nil }
        let doubled = min(2.0, 0.05 * Double(1 << min(attempt - 1, 10)))
        let jittered = Duration.seconds(doubled * Double.random(in: 0.5...1, using: &generator))
        guard let retryAfter else { return jittered }
        return max(jittered, min(retryAfter, .seconds(5)))
    }
}
