import APIErrors
import ServerKit
import StrictJSON

/// One message of the orders' events: what one group of orders has become.
struct OrderEvent: Sendable, Equatable {
    /// When it happened.
    var time: Timestamp
    /// The orders as they were then, each with its version.
    var orders: [VersionedOrder]

    /// The version of messages that is understood.
    static let version: Int64 = 1
    /// Orders in one message at most.
    static let maximumOrders = 10_000

    /// `type`
    enum Kind: String, CaseIterable {
        case created = "order.created"
        case confirmed = "order.confirmed"
        case failed = "order.failed"
        case cancelled = "order.cancelled"
    }

    /// Reads a message's body. Members that are not known are ignored.
    /// - Throws: `VALIDATION_ERROR`: it is no message of this kind and version, and never will be
    init(_ body: [UInt8]) throws(APIError) {
        let message = try JSONObjectReader(body)
        guard try message.int("version", in: 0...Int64.max) == OrderEvent.version else { throw .invalid(field: "version") }
        // The kind says nothing that the orders' states do not; one that is not known may mean anything.
        _ = try message.choice("type", Kind.self)
        self.time = try message.time("time")
        self.orders = []
        for order in try message.objects("orders", count: 1...OrderEvent.maximumOrders) {
            self.orders.append(
                VersionedOrder(
                    order: Order(
                        id: try order.int("id", in: Values.idRange),
                        productID: try order.int("productId", in: Values.idRange),
                        productCode: try order.optionalString("productCode", length: 1...64),
                        buyerID: try order.optionalString("buyerId", length: Values.userIDLength),
                        quantity: try order.int("quantity", in: Values.quantityRange),
                        unitPrice: try order.optionalInt("unitPrice", in: Values.priceRange),
                        status: try order.choice("status", OrderStatus.self),
                        failReason: try order.optionalString("failReason", length: 0...200),
                        idempotencyKey: nil,
                        run: try order.optionalInt("run", in: 1...Int64.max) ?? 1,
                        cancelRequestedAt: nil,
                        cancelKey: nil,
                        createdAt: try order.time("createdAt"),
                        updatedAt: try order.time("updatedAt")
                    ),
                    version: try order.int("version", in: 1...Int64.max)
                )
            )
        }
    }
}

extension JSONObjectReader {
    fileprivate func time(_ name: StaticString) throws(APIError) -> Timestamp {
        guard let time = Timestamp(rfc3339: try self.string(name, length: 20...40)) else { throw .invalid(field: name.description) }
        return time
    }
}
