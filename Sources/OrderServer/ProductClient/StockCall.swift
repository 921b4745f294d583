import APIErrors
import StockContract

/// The product server's answer to one change.
enum StockAnswer: Sendable, Equatable {
    case done(remainingStock: Int64)
    /// The change was done by an earlier call, with this result.
    case replayed(remainingStock: Int64)
    /// The change was refused for good, with this error code.
    case refused(code: String)
    /// There was no answer, or one that does not decide the change. `retryAfter` is what the server asked for.
    case noAnswer(cause: String, retryAfter: Duration?)

    /// Judges one answer by its status and error code. An answer that cannot be understood leaves the change undecided, as a lost one does.
    init(status: Int, code: String?, remainingStock: Int64?, retryAfter: Duration?, isReplayed: Bool = false) {
        switch status {
        case 200:
            if let remainingStock {
                self = isReplayed ? .replayed(remainingStock: remainingStock) : .done(remainingStock: remainingStock)
            } else {
                self = .noAnswer(cause: NoAnswerCause.malformedAnswer, retryAfter: retryAfter)
            }
        // The call came too early or too often, the same key is in work, or the token is wrong, which needs operator action. None of these decides the change.
        case 401, 403, 408, 413, 425, 429: self = .noAnswer(cause: code ?? "HTTP_\(status)", retryAfter: retryAfter)
        case 409 where code == APIErrorCode.requestInProgress.rawValue:
            self = .noAnswer(cause: APIErrorCode.requestInProgress.rawValue, retryAfter: retryAfter)
        // Only an error code of the contract is a refusal. For example, a 404 from a proxy that lacks the route leaves the change undecided.
        case 400..<500:
            if let code, APIErrorCode.isDecision(code) {
                self = .refused(code: code)
            } else {
                self = .noAnswer(cause: code ?? "HTTP_\(status)", retryAfter: retryAfter)
            }
        case 503 where code == StockAnswer.lockTimeout:
            self = .noAnswer(cause: StockAnswer.lockTimeout, retryAfter: retryAfter.map { min($0, StockAnswer.lockRetry) })
        default: self = .noAnswer(cause: code ?? "HTTP_\(status)", retryAfter: retryAfter)
        }
    }

    /// The error code for a product whose row another transaction holds locked.
    static let lockTimeout = APIErrorCode.lockTimeout.rawValue
    /// When to ask again for such a product. The product server answers without waiting, so a buyer may wait this long after the lock has ended.
    static let lockRetry = Duration.milliseconds(500)
}

/// Asks the product server to change stock.
protocol StockCalls: Sendable {
    /// Sends a change. `done` is called once, on the thread where the answer comes.
    func send(_ change: StockChange, done: @escaping @Sendable (StockAnswer) -> Void)
}
