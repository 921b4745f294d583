/// One decrease, as its caller sent it.
public struct DecreaseRequest: Hashable, Sendable {
    /// The product whose stock is decreased.
    public var product: ProductID
    /// The idempotency key, at most 255 printable ASCII characters. The ledger remembers it for as long as it keeps the row.
    public var key: String
    /// The order that the ledger's row names. A repeat must match product, order and quantity.
    public var orderID: Int64
    /// Units, 1 to 1,000,000,000.
    public var quantity: Quantity
    /// Whether the caller says that it sent this key before: the second or a later attempt, or a redelivered message.
    public var isRepeat: Bool
    /// When the order was made, in microseconds since the Unix epoch; nil if the caller does not say. A row under this key that is older belongs to an earlier
    /// order that had the same id. The answer is ``DecreaseAnswer/keyReused`` then.
    public var since: Int64?

    /// How much older than ``since`` a row may be. The order's clock and the ledger's may differ by that much.
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
    /// The product whose stock is increased.
    public var product: ProductID
    /// The idempotency key, `INC-x`.
    public var key: String
    /// The order that the ledger's row names. Product, order and quantity must be those of the decrease.
    public var orderID: Int64
    /// Units that the decrease took, as the caller says: 1 to 1,000,000,000. The increase is refused if the ledger has another number.
    public var quantity: Quantity

    /// Creates a request from values that were validated where they came in.
    public init(product: ProductID, key: String, orderID: Int64, quantity: Quantity) {
        self.product = product
        self.key = key
        self.orderID = orderID
        self.quantity = quantity
    }

    /// The key of the decrease that this increase belongs to: `DEC-x` for `INC-x`. The ledger's functions know these forms as well; the contract between the servers,
    /// which has names for them, is above this engine.
    public var decreaseKey: String { "DEC-" + key.dropFirst(4) }
}

/// Why the engine could not decide a request. The caller should send the same key again.
public enum Unavailable: Hashable, Sendable {
    /// Too many requests wait already. Nothing was sent.
    case overloaded
    /// The product's row was locked for too long. The statement is known not to have run.
    case lockTimeout
    /// The ledger gave no answer within the request's time. The request may still be decided later.
    case noAnswer
    /// The ledger could not be reached, or refused. The statement is known not to have run.
    case ledgerDown
}

/// What a decrease is told.
public enum DecreaseAnswer: Hashable, Sendable {
    /// The units are the buyer's, durably. `remaining` is the stock after the decrease. `replayed`: the decrease was done by an earlier call. A first attempt
    /// that sends its commit again and finds a row takes that row for its own, and has replayed nothing.
    case sold(remaining: Int64, replayed: Bool)
    /// The product is sold out, or has fewer units left than the request wants.
    case insufficient(remaining: Int64)
    /// The key was compensated or finally refused. It can never be committed.
    case keyClosed
    /// The key belongs to another payload, or to an order that was made before ``DecreaseRequest/since``.
    case keyReused
    /// The product is discontinued.
    case notOnSale
    case productMissing
    /// The request was not decided, for this reason.
    case unavailable(Unavailable)
}

/// What an increase is told.
public enum IncreaseAnswer: Hashable, Sendable {
    /// `quantity` units were given back, durably. `remaining` is the stock after them.
    case added(quantity: Quantity, remaining: Int64, replayed: Bool)
    /// The decrease never happened. Nothing was given back, and the decrease's key is closed.
    case nothingToReturn(remaining: Int64, replayed: Bool)
    /// The decrease, or the row that closed its key, names another product, order or quantity. Nothing was changed.
    case keyReused
    case productMissing
    /// The request was not decided, for this reason.
    case unavailable(Unavailable)
}
