package import APIErrors
package import StrictJSON

/// One message of the orders' events: what one group of orders has become. `docs/messages.md` has its schema.
///
/// The order server's messages are made by its relay of drafts (`EventDraft`) or by functions of its database (`outbox_message` and `outbox_event_order`,
/// migration V005), for the orders that were really changed; tests of the order server compare them with this writer.
package struct OrderEvent: Sendable, Equatable {
    /// The version that is written and understood.
    package static let version: Int64 = 1
    /// Orders in one message at most.
    package static let maximumOrders = 10_000

    /// A message's type, and its routing key.
    package enum Kind: String, CaseIterable, Sendable {
        /// Orders were accepted.
        case created = "order.created"
        /// Orders have their stock.
        case confirmed = "order.confirmed"
        /// Orders did not get their stock.
        case failed = "order.failed"
        /// Orders were taken back.
        case cancelled = "order.cancelled"
    }

    /// One order as it was then.
    package struct Order: Sendable, Equatable {
        package var id: Int64
        package var productID: Int64
        /// The code that the buyer named the product by, if it was one.
        package var productCode: String?
        package var buyerID: String?
        /// Units.
        package var quantity: Int64
        /// In the currency's smallest unit, if the buyer named one.
        package var unitPrice: Int64?
        package var status: OrderStatus
        package var failReason: String?
        /// 1, and one more each time the order is run again.
        package var run: Int64
        /// 1, and one more with each change.
        package var version: Int64
        package var createdAt: Timestamp
        package var updatedAt: Timestamp

        package init(
            id: Int64,
            productID: Int64,
            productCode: String?,
            buyerID: String?,
            quantity: Int64,
            unitPrice: Int64?,
            status: OrderStatus,
            failReason: String?,
            run: Int64,
            version: Int64,
            createdAt: Timestamp,
            updatedAt: Timestamp
        ) {
            self.id = id
            self.productID = productID
            self.productCode = productCode
            self.buyerID = buyerID
            self.quantity = quantity
            self.unitPrice = unitPrice
            self.status = status
            self.failReason = failReason
            self.run = run
            self.version = version
            self.createdAt = createdAt
            self.updatedAt = updatedAt
        }
    }

    package var messageID: String?
    package var kind: Kind
    /// When it happened.
    package var time: Timestamp
    package var orders: [Order]

    package init(messageID: String?, kind: Kind, time: Timestamp, orders: [Order]) {
        self.messageID = messageID
        self.kind = kind
        self.time = time
        self.orders = orders
    }

    /// The message as it is sent.
    package var body: [UInt8] {
        var json = JSONWriter(capacity: 128 + 320 * orders.count)
        json.object { json in
            json.member("version", Self.version)
            json.member("type", kind.rawValue)
            json.member("messageId", messageID)
            json.member("time", time)
            json.array("orders", orders) { json, order in
                json.object { json in
                    json.member("id", order.id)
                    json.member("productId", order.productID)
                    json.member("buyerId", order.buyerID)
                    json.member("quantity", order.quantity)
                    json.member("status", order.status.rawValue)
                    json.member("failReason", order.failReason)
                    json.member("createdAt", order.createdAt)
                    json.member("updatedAt", order.updatedAt)
                    json.member("productCode", order.productCode)
                    json.member("unitPrice", order.unitPrice)
                    json.member("run", order.run)
                    json.member("version", order.version)
                }
            }
        }
        return json.bytes
    }

    /// Reads a message's body. Members that are not known are ignored.
    /// - Throws: `VALIDATION_ERROR`: it is no message of this kind and version, and never will be
    package init(_ body: [UInt8]) throws(APIError) {
        let message = try JSONObjectReader(body)
        guard try message.int("version", in: 0...Int64.max) == Self.version else { throw .invalid(field: "version") }
        // The kind repeats what the orders' states say. A kind that is not known may mean anything, so the message is refused.
        kind = try message.choice("type", Kind.self)
        messageID = (try? message.text("messageId")) ?? nil
        time = try message.time("time")
        orders = []
        for order in try message.objects("orders", count: 1...Self.maximumOrders) {
            orders.append(
                Order(
                    id: try order.int("id", in: Values.idRange),
                    productID: try order.int("productId", in: Values.idRange),
                    productCode: try order.optionalString("productCode", length: 1...64),
                    buyerID: try order.optionalString("buyerId", length: Values.userIDLength),
                    quantity: try order.int("quantity", in: Values.quantityRange),
                    unitPrice: try order.optionalInt("unitPrice", in: Values.priceRange),
                    status: try order.choice("status", OrderStatus.self),
                    failReason: try order.optionalString("failReason", length: 0...200),
                    run: try order.optionalInt("run", in: 1...Int64.max) ?? 1,
                    version: try order.int("version", in: 1...Int64.max),
                    createdAt: try order.time("createdAt"),
                    updatedAt: try order.time("updatedAt")
                )
            )
        }
    }
}

extension JSONObjectReader {
    /// A time of RFC 3339.
    func time(_ name: StaticString) throws(APIError) -> Timestamp {
        guard let time = Timestamp(rfc3339: try string(name, length: 20...40)) else { throw .invalid(field: path(name)) }
        return time
    }
}
