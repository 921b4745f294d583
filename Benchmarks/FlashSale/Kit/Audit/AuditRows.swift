/// The product's row in the product database.
public struct ProductRow: Equatable, Sendable {
    /// Units left, the truth.
    public var stock: Int64
    /// The fence under which Redis must hold this product.
    public var fence: Int64
    /// Units at creation.
    public var initialStock: Int64

    /// All in units but the fence.
    public init(stock: Int64, fence: Int64, initialStock: Int64) {
        self.stock = stock
        self.fence = fence
        self.initialStock = initialStock
    }
}

/// Sums over the product's ledger, in units.
public struct LedgerTotals: Equatable, Sendable {
    /// `ORDER_DECREMENT` rows.
    public var sold: Int64
    /// `ORDER_INCREMENT` rows.
    public var returned: Int64
    /// All other rows, increases less decreases.
    public var restocked: Int64
    /// `ORDER_DECREMENT` rows that name no order: nobody's units.
    public var decrementsWithoutOrder: Int64

    /// All in units but the last, which counts rows.
    public init(sold: Int64, returned: Int64, restocked: Int64, decrementsWithoutOrder: Int64 = 0) {
        self.sold = sold
        self.returned = returned
        self.restocked = restocked
        self.decrementsWithoutOrder = decrementsWithoutOrder
    }
}

/// The product's orders, by status.
public struct OrderTotals: Equatable, Sendable {
    /// Units of CONFIRMED orders.
    public var confirmedUnits: Int64
    /// CONFIRMED orders.
    public var confirmed: Int64
    /// PENDING orders.
    public var pending: Int64
    /// FAILED orders.
    public var failed: Int64
    /// CANCELLED orders.
    public var cancelled: Int64

    /// Orders, and units of the confirmed ones.
    public init(confirmedUnits: Int64, confirmed: Int64, pending: Int64, failed: Int64 = 0, cancelled: Int64 = 0) {
        self.confirmedUnits = confirmedUnits
        self.confirmed = confirmed
        self.pending = pending
        self.failed = failed
        self.cancelled = cancelled
    }
}

/// What Redis holds of the product. Nil where the key is missing.
public struct RedisStock: Equatable, Sendable {
    /// The counter that reservations are taken from.
    public var counter: Int64?
    /// The fence it was installed under.
    public var fence: Int64?
    /// Reservations neither settled nor released.
    public var pending: Int64

    /// Nil where the key is missing.
    public init(counter: Int64?, fence: Int64?, pending: Int64) {
        self.counter = counter
        self.fence = fence
        self.pending = pending
    }
}

/// One order of the product in the order database.
public struct OrderRow: Equatable, Sendable {
    /// The order's id; pages are sorted by it.
    public var id: Int64
    /// `PENDING`, `CONFIRMED`, `FAILED` or `CANCELLED`.
    public var status: String
    /// Units ordered.
    public var quantity: Int64
    /// The idempotency key that it was placed under; nil if it had none, or the source does not tell.
    public var key: String?
    /// Who ordered; nil if nobody was named, or the source does not tell.
    public var buyer: String?

    /// One order.
    public init(id: Int64, status: String, quantity: Int64, key: String? = nil, buyer: String? = nil) {
        self.id = id
        self.status = status
        self.quantity = quantity
        self.key = key
        self.buyer = buyer
    }
}

/// All ledger rows of one order taken together.
public struct LedgerRow: Equatable, Sendable {
    /// The order's id; pages are sorted by it.
    public var orderID: Int64
    /// `ORDER_DECREMENT` rows.
    public var decrements: Int64
    /// Units of those rows.
    public var decremented: Int64
    /// `ORDER_INCREMENT` rows.
    public var increments: Int64
    /// Units of those rows.
    public var incremented: Int64

    /// One order's rows.
    public init(orderID: Int64, decrements: Int64, decremented: Int64, increments: Int64 = 0, incremented: Int64 = 0) {
        self.orderID = orderID
        self.decrements = decrements
        self.decremented = decremented
        self.increments = increments
        self.incremented = incremented
    }
}

/// Where the audit reads. The harness's own connections to both databases and Redis: an audit asked of the servers
/// under audit would prove less, for a server that lost a row would not miss it when asked.
public protocol AuditSource: Sendable {
    /// The product's row, nil if there is none.
    func product(_ id: Int64) async throws -> ProductRow?
    /// Sums over the ledger.
    func ledgerTotals(of product: Int64) async throws -> LedgerTotals
    /// Orders by status.
    func orderTotals(of product: Int64) async throws -> OrderTotals
    /// What Redis holds, nil if Redis does not answer.
    func redisStock(of product: Int64) async -> RedisStock?
    /// At most `limit` orders with an id above `after`, ascending.
    func orders(of product: Int64, after: Int64, limit: Int) async throws -> [OrderRow]
    /// At most `limit` orders' ledger rows with an order id above `after`, ascending.
    func ledger(of product: Int64, after: Int64, limit: Int) async throws -> [LedgerRow]
    /// At most `limit` orders with an id above `after`, ascending, with their times.
    func orderEndings(of product: Int64, after: Int64, limit: Int) async throws -> [OrderEnding]
    /// The product's messages, and all events, that are not sent. Needs an order server with an outbox.
    func outbox(of product: Int64) async throws -> OutboxTotals
    /// Whether the relay has anything left to send, of whatever product.
    func hasWaitingMessages() async throws -> Bool
}
