import APIErrors
import ServerKit
import StockContract
import StrictJSON

/// What the product server said to one change.
enum StockAnswer: Sendable, Equatable {
    case done(remainingStock: Int64)
    /// Done by an earlier call: this is its result.
    case replayed(remainingStock: Int64)
    /// A clear no: the error code.
    case refused(code: String)
    /// No answer, or one that says nothing about the change. `retryAfter` as the server asked.
    case noAnswer(cause: String, retryAfter: Duration?)

    /// Judges one answer by its status and error code. What cannot be understood is no answer: never a success and never a no.
    init(status: Int, code: String?, remainingStock: Int64?, retryAfter: Duration?, isReplayed: Bool = false) {
        switch status {
        case 200:
            if let remainingStock {
                self = isReplayed ? .replayed(remainingStock: remainingStock) : .done(remainingStock: remainingStock)
            } else {
                self = .noAnswer(cause: "MALFORMED_ANSWER", retryAfter: retryAfter)
            }
        // Asked too early, too often, or while the same key is at work: none of them is a decision. The token is for an operator to mend.
        case 401, 403, 408, 413, 425, 429: self = .noAnswer(cause: code ?? "HTTP_\(status)", retryAfter: retryAfter)
        case 409 where code == APIErrorCode.requestInProgress.rawValue:
            self = .noAnswer(cause: APIErrorCode.requestInProgress.rawValue, retryAfter: retryAfter)
        // A no is the contract's own word: a 404 of a proxy that has no such route decides nothing.
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

    /// The error code of a product whose row somebody else's transaction holds locked.
    static let lockTimeout = APIErrorCode.lockTimeout.rawValue
    /// When such a product is asked for again. The product server says so without waiting, so this is how long a buyer goes on waiting after the lock has ended.
    static let lockRetry = Duration.milliseconds(500)
}

/// Asks the product server to change stock.
protocol StockCalls: Sendable {
    /// Asks; `done` is called once, on whatever thread the answer comes.
    func send(_ change: StockChange, done: @escaping @Sendable (StockAnswer) -> Void)
}
