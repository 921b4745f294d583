import ServerKit
import StrictJSON

/// One change of stock to ask the product server for.
struct StockChange: Sendable, Equatable {
    enum Direction: String, Sendable {
        case out = "OUT"
        case `in` = "IN"
    }

    var direction: Direction
    var productID: Int64
    var orderID: Int64
    /// Units.
    var quantity: Int64
    /// `DEC-…` or `INC-…`.
    var key: String
    /// From 1; above 1 the ledger decides, and its *no* is final.
    var attempt: Int64
    /// `X-Request-Id` of the request that the change is made for, at most 128 of `A-Z a-z 0-9 . _ : -`.
    var requestID: String?
    /// When the order was made: what the ledger has under the key from long before belongs to another order.
    var since: Timestamp?
}

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
        case 409 where code == "REQUEST_IN_PROGRESS": self = .noAnswer(cause: "REQUEST_IN_PROGRESS", retryAfter: retryAfter)
        // A no is the contract's own word: a 404 of a proxy that has no such route decides nothing.
        case 400..<500:
            if let code, StockAnswer.isDecision(code) {
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
    static let lockTimeout = "LOCK_TIMEOUT"
    /// When such a product is asked for again. The product server says so without waiting, so this is how long a buyer goes on waiting after the lock has ended.
    static let lockRetry = Duration.milliseconds(500)

    private static func isDecision(_ code: String) -> Bool {
        switch code {
        case "INSUFFICIENT_STOCK", "PRODUCT_NOT_FOUND", "INVALID_STATE", "VALIDATION_ERROR", "KEY_CLOSED", "KEY_REUSED",
            "PRODUCT_DISCONTINUED":
            true
        default: false
        }
    }
}

/// Asks the product server to change stock.
protocol StockCalls: Sendable {
    /// Asks; `done` is called once, on whatever thread the answer comes.
    func send(_ change: StockChange, done: @escaping @Sendable (StockAnswer) -> Void)
}
