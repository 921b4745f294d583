import BlockingThreads

/// How often and when a call without an answer is repeated.
struct RetryPolicy: Sendable, Equatable {
    /// How many calls of one step are made at most, including the first one.
    var maximumAttempts = 6
    /// The longest first wait. It doubles with each attempt.
    var initialBackoff: Duration = .milliseconds(50)
    /// The longest wait, unless the callee asks for a longer one.
    var maximumBackoff: Duration = .seconds(1)

    /// The wait before the next call.
    ///
    /// "Equal jitter" (AWS Architecture Blog, Exponential Backoff and Jitter, 2015): half of the wait is fixed, half random.
    /// - Parameters:
    ///   - failures: calls without an answer so far, from 1
    ///   - random: 0 to 1
    func backoff(failures: Int, retryAfter: Duration?, random: Double) -> Duration {
        let backoff = Backoff(minimum: min(initialBackoff, maximumBackoff), maximum: maximumBackoff, jitter: 0.5)
        return max(backoff.wait(after: max(failures, 1) - 1, random: 1 - min(max(random, 0), 1)), retryAfter ?? .zero)
    }
}
