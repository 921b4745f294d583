/// How often and when an unanswered call is made again.
struct RetryPolicy: Sendable, Equatable {
    /// Calls of one step at most, the first included.
    var maximumAttempts = 6
    /// The first wait at most; it doubles with each attempt.
    var initialBackoff: Duration = .milliseconds(50)
    /// A wait at most, unless the callee asks for more.
    var maximumBackoff: Duration = .seconds(1)

    /// The wait before the next call.
    ///
    /// "Equal jitter" (AWS Architecture Blog, Exponential Backoff and Jitter, 2015): half of the wait is fixed, half random.
    /// - Parameters:
    ///   - failures: calls without an answer so far, from 1
    ///   - random: 0 to 1
    func backoff(failures: Int, retryAfter: Duration?, random: Double) -> Duration {
        // 20 doublings exceed any maximum that the settings allow.
        let exponential = self.initialBackoff * (1 << min(max(failures, 1) - 1, 20))
        let bounded = min(exponential, self.maximumBackoff)
        let jittered = bounded * (0.5 + 0.5 * min(max(random, 0), 1))
        return max(jittered, retryAfter ?? .zero)
    }
}
