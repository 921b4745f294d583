import HotPath
import StockContract
import StrictJSON

struct Order: Sendable, Equatable {
    var id: Int64
    var productID: Int64
    /// The product's code, if the buyer named the product by it.
    var productCode: String?
    var buyerID: String?
    /// Units.
    var quantity: Int64
    /// The price of a unit in the currency's smallest unit, if the buyer named one.
    var unitPrice: Int64?
    var status: OrderStatus
    var failReason: String?
    var idempotencyKey: String?
    /// The number of the run: 1 at first, and one more each time the order is run again. If an order's key belongs to another order, it goes on in a run whose
    /// number is the Unix time in seconds, which no earlier order with this id can have had.
    var run: Int64
    var cancelRequestedAt: Timestamp?
    var cancelKey: String?
    var createdAt: Timestamp
    var updatedAt: Timestamp
    /// The version: 1 at first, and one more with each change. Of two events about an order, the one with the greater version is newer.
    var version: Int64 = 1
    /// Whether the order was accepted with a message that carries it to the product server.
    var wentOverBroker = false
    /// The `X-Request-Id` of the request that works on the order now. Every call for the order passes it on. It is not stored.
    var requestID: String?

    /// The first run number of the kind that follows a key of another order. Smaller run numbers are counted.
    static let firstOtherRun: Int64 = 1_000_000_000

    /// The key of this run's decrement.
    var decreaseKey: String { StockKey.decrease(order: id, run: self.run) }
    /// The key of this run's compensation.
    var increaseKey: String { StockKey.increase(order: id, run: self.run) }
}

/// An order before it has an id.
struct OrderDraft: Sendable, Equatable {
    var productID: Int64
    var productCode: String?
    var buyerID: String?
    /// Units.
    var quantity: Int64
    /// In the currency's smallest unit.
    var unitPrice: Int64?
    var idempotencyKey: String?
    /// The W3C trace context of the request, passed on with an order that goes over the broker.
    var traceparent: String?
    /// The `X-Request-Id` of the request. Every call for the order passes it on.
    var requestID: HotRequestID?

    /// Whether `order` is what this draft asks for. The code is only another name of the product, and is not compared.
    func isSame(as order: Order) -> Bool {
        productID == order.productID && buyerID == order.buyerID && quantity == order.quantity
            && self.unitPrice == order.unitPrice
    }
}
