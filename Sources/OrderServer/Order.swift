import HotPath
import ServerKit
import StockContract
import StrictJSON

/// An order as it is stored.
struct Order: Sendable, Equatable {
    var id: Int64
    var productID: Int64
    /// The code that the buyer named the product by, if it was one.
    var productCode: String?
    var buyerID: String?
    /// Units.
    var quantity: Int64
    /// In the currency's smallest unit, if the buyer named one.
    var unitPrice: Int64?
    var status: OrderStatus
    var failReason: String?
    var idempotencyKey: String?
    /// 1, and one more each time the order is run again. An order whose key was found to be another's goes on as the run that the Unix time in seconds names: a number that
    /// no order of this id has had.
    var run: Int64
    var cancelRequestedAt: Timestamp?
    var cancelKey: String?
    var createdAt: Timestamp
    var updatedAt: Timestamp
    /// 1, and one more with each change: an event about the order is newer than another if its version is greater.
    var version: Int64 = 1
    /// Whether it was accepted with a message that carries it to the product server.
    var wentOverBroker = false
    /// `X-Request-Id` of the request that works on it now, passed on with every call for it. Not stored.
    var requestID: String?

    /// Runs from here on were begun because the key of the run before was another order's; runs below are counted.
    static let firstOtherRun: Int64 = 1_000_000_000

    /// The key of this run's decrement.
    var decreaseKey: String { StockKey.decrease(order: self.id, run: self.run) }
    /// The key of this run's compensation.
    var increaseKey: String { StockKey.increase(order: self.id, run: self.run) }
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
    /// `X-Request-Id` of the request, passed on with every call for the order.
    var requestID: HotRequestID?

    /// Whether `order` is what this draft asked for. The code is another name of the product, and counts for nothing.
    func isSame(as order: Order) -> Bool {
        self.productID == order.productID && self.buyerID == order.buyerID && self.quantity == order.quantity
            && self.unitPrice == order.unitPrice
    }
}
