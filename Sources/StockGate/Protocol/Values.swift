/// One decrease, as its caller sent it.
public struct DecreaseRequest: Hashable, Sendable {
    /// Whose stock.
    public var product: ProductID
    /// The idempotency key, at most 255 printable ASCII characters. Remembered as long as the ledger.
    public var key: String
    /// The order that the ledger row names; together with product and quantity the payload that a repeat must match.
    public var orderID: Int64
    /// Units, 1 to 1,000,000,000.
    public var quantity: Quantity
    /// Whether the caller says that this key was sent before (attempt 2 and later, or a redelivered message).
    public var isRepeat: Bool
    /// When the order was made, microseconds since the Unix epoch; nil if the caller does not say. A row under this key that is older is another order's, whose
    /// id came round again: the answer is ``DecreaseAnswer/keyReused``.
    public var since: Int64?

    /// How much older than ``since`` a row may be, since the order's clock and the ledger's are two.
    public static let clockTolerance: Duration = .seconds(10)

    /// Creates a request from values that were validated where they came in.
    public init(product: ProductID, key: String, orderID: Int64, quantity: Quantity, isRepeat: Bool, since: Int64? = nil) {
        self.product = product
        self.key = key
        self.orderID = orderID
        self.quantity = quantity
        self.isRepeat = isRepeat
        self.since = since
    }

    /// Whether a row made at `time` (microseconds since the Unix epoch) is too old to be this order's.
    package func isOlder(rowMadeAt time: Int64) -> Bool {
        guard let since else { return false }
        let (age, overflow) = since.subtractingReportingOverflow(time)
        return overflow ? since > time : age > Self.clockTolerance.components.seconds * 1_000_000
    }
}

/// One increase: the compensation or return of the decrease `DEC-x` under the key `INC-x`.
public struct IncreaseRequest: Hashable, Sendable {
    /// Whose stock.
    public var product: ProductID
    /// The idempotency key, `INC-x`.
    public var key: String
    /// The order that the ledger row names; together with product and quantity what must be the decrease's own.
    public var orderID: Int64
    /// Units that the decrease took, as the caller says: 1 to 1,000,000,000. Another number than the ledger's is refused.
    public var quantity: Quantity

    /// Creates a request from values that were validated where they came in.
    public init(product: ProductID, key: String, orderID: Int64, quantity: Quantity) {
        self.product = product
        self.key = key
        self.orderID = orderID
        self.quantity = quantity
    }

    /// The key of the decrease that this increase belongs to: `DEC-x` for `INC-x`.
    public var decreaseKey: String { "DEC-" + key.dropFirst(4) }
}

/// Why the engine could not decide a request. Nothing was decided: the caller sends the same key again.
public enum Unavailable: Hashable, Sendable {
    /// Too much waits already. Nothing was sent.
    case overloaded
    /// The product's row was locked for too long. The statement is known not to have run.
    case lockTimeout
    /// The ledger gave no answer within the request's time. It may still be decided.
    case noAnswer
    /// The ledger could not be reached, or refused. The statement is known not to have run.
    case ledgerDown
}

/// What a decrease is told.
public enum DecreaseAnswer: Hashable, Sendable {
    /// The units are the buyer's, durably. `remaining` is the stock after them; `replayed`: this is the first result of an earlier call. A first attempt whose commit was
    /// unknown and is found when it is sent again has replayed nothing: the row is taken for its own.
    case sold(remaining: Int64, replayed: Bool)
    /// Sold out, or fewer left than asked.
    case insufficient(remaining: Int64)
    /// The key was compensated, or finally refused: it can never be committed.
    case keyClosed
    /// The key belongs to another payload, or to an order that was made before ``DecreaseRequest/since``.
    case keyReused
    /// The product is discontinued.
    case notOnSale
    /// There is no such product.
    case productMissing
    /// Not decided.
    case unavailable(Unavailable)
}

/// What an increase is told.
public enum IncreaseAnswer: Hashable, Sendable {
    /// `quantity` units were given back, durably. `remaining` is the stock after them.
    case added(quantity: Quantity, remaining: Int64, replayed: Bool)
    /// The decrease never happened: nothing was given back, and its key is closed.
    case nothingToReturn(remaining: Int64, replayed: Bool)
    /// The decrease, or what closed its key, is of another product, order or quantity. Nothing was changed.
    case keyReused
    /// There is no such product.
    case productMissing
    /// Not decided.
    case unavailable(Unavailable)
}
