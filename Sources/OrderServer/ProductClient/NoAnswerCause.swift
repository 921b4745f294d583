/// Why the product server gave no answer that decides: the texts of `details.cause` and of metrics, beside the codes of errors that it answered with.
enum NoAnswerCause {
    /// Nothing was asked of it, or nothing that came back decides.
    static let noAnswer = "NO_ANSWER"
    /// There was no connection.
    static let cannotConnect = "CANNOT_CONNECT"
    /// No answer came in time.
    static let timedOut = "TIMED_OUT"
    /// The connection ended before the answer.
    static let connectionLost = "CONNECTION_LOST"
    /// The answer cannot be read.
    static let malformedAnswer = "MALFORMED_ANSWER"
    /// The breaker in front of it is open.
    static let breakerOpen = "BREAKER_OPEN"
    /// The buyer's deadline came first.
    static let deadline = "DEADLINE"
    /// The saga was cancelled.
    static let cancelled = "CANCELLED"
}
