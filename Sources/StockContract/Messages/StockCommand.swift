package import APIErrors
package import StrictJSON

/// A message of the queue ``StockGateTopology/decreaseQueue``: the decreases of one group of orders for one product. `docs/messages.md` has its schema.
///
/// The order server's messages are written by functions of its database (`outbox_message` and `outbox_command_order`, migration V005), out of the rows that
/// were really written; a test of the order server reads them with this reader and compares them with this writer.
package struct StockCommand: Sendable, Equatable {
    /// The version that is written and understood.
    package static let version: Int64 = 1
    /// The message's type, and its routing key.
    package static let type = "stock.decrease"
    /// Orders in one message at most: the largest group that an order server writes.
    package static let maximumOrders = 8_192
    /// Bytes of a body at most: the largest group with keys and buyers of a common size, several times over.
    package static let maximumBytes = 16 << 20
    /// Characters of a message's id. The result's id is `R-` and the command's, and AMQP has room for 255 bytes.
    package static let messageIDLength = 1...200

    /// One order's decrease.
    package struct Order: Sendable, Equatable {
        package var id: Int64
        /// `DEC-…`
        package var key: String
        /// Units.
        package var quantity: Int64
        package var buyerID: String?
        /// The W3C trace context of the request that the order was made by.
        package var traceparent: String?

        package init(id: Int64, key: String, quantity: Int64, buyerID: String? = nil, traceparent: String? = nil) {
            self.id = id
            self.key = key
            self.quantity = quantity
            self.buyerID = buyerID
            self.traceparent = traceparent
        }
    }

    package var messageID: String
    package var productID: Int64
    /// When the order server wrote it.
    package var time: Timestamp
    package var orders: [Order]

    /// What tells this message from every other. The id alone does not: ids of messages come round again when an order database is restored.
    package var identity: String { "\(messageID) \(time.microsecondsSinceEpoch)" }

    package init(messageID: String, productID: Int64, time: Timestamp, orders: [Order]) {
        self.messageID = messageID
        self.productID = productID
        self.time = time
        self.orders = orders
    }

    /// The message as it is sent.
    package var body: [UInt8] {
        var json = JSONWriter(capacity: 128 + 96 * orders.count)
        json.object { json in
            json.member("version", Self.version)
            json.member("type", Self.type)
            json.member("messageId", messageID)
            json.member("productId", productID)
            json.member("time", time)
            json.array("orders", orders) { json, order in
                json.object { json in
                    json.member("orderId", order.id)
                    json.member("key", order.key)
                    json.member("quantity", order.quantity)
                    json.member("buyerId", order.buyerID)
                    if let traceparent = order.traceparent { json.member("traceparent", traceparent) }
                }
            }
        }
        return json.bytes
    }

    /// Reads a message strictly: what cannot be read as a whole is poison as a whole. Members that are not known are ignored.
    package init(_ body: [UInt8]) throws(PoisonCommand) {
        guard body.count <= Self.maximumBytes else {
            throw PoisonCommand(reason: .payloadTooLarge, detail: "\(body.count) bytes, at most \(Self.maximumBytes)")
        }
        let object: JSONObjectReader
        do {
            object = try JSONObjectReader(body)
        } catch {
            throw PoisonCommand(error)
        }
        do {
            try self.init(object)
        } catch {
            throw PoisonCommand(error, in: object)
        }
    }

    private init(_ object: JSONObjectReader) throws(APIError) {
        // The version is read first: in another version, every other member may have another meaning.
        let version = try object.int("version", in: 1...Int64.max)
        guard version == Self.version else { throw .invalid(field: "version") }
        guard try object.string("type", length: 1...64) == Self.type else { throw .invalid(field: "type") }
        messageID = try object.string("messageId", length: Self.messageIDLength)
        productID = try object.int("productId", in: Values.idRange)
        time = try object.time("time")
        orders = try object.objects("orders", count: 1...Self.maximumOrders).map { order throws(APIError) in
            let buyerID = try order.optionalString("buyerId", length: Values.userIDLength)
            let key = try Values.idempotencyKey(try order.string("key", length: Values.keyLength), field: "key")
            return Order(
                id: try order.int("orderId", in: Values.idRange),
                key: try StockKey.checkedDecrease(key),
                quantity: try order.int("quantity", in: Values.quantityRange),
                buyerID: buyerID,
                // The trace context is for logs alone. One that cannot be read counts as missing.
                traceparent: (try? order.text("traceparent")) ?? nil
            )
        }
    }
}

/// A message that nobody can ever act on, and what could be read of it.
package struct PoisonCommand: Error, Equatable {
    /// An order that the message names, so that it can be told.
    package struct Order: Sendable, Equatable {
        package var id: Int64
        package var key: String
    }

    /// The error code that the orders fail with.
    package var reason: APIErrorCode
    /// What is wrong, for whoever reads the dead letter.
    package var detail: String
    package var messageID: String?
    package var productID: Int64?
    /// Empty if no id could be read.
    package var orders: [Order] = []

    package init(reason: APIErrorCode, detail: String) {
        self.reason = reason
        self.detail = detail
    }

    init(_ error: APIError) {
        self.init(reason: error.code, detail: error.message.text(.english, details: error.details))
        if case .string(let field)? = error.details["field"], !detail.contains(field) { detail += " (\(field))" }
    }

    /// Reads whatever can be read, field by field.
    init(_ error: APIError, in object: JSONObjectReader) {
        self.init(error)
        messageID = try? object.string("messageId", length: StockCommand.messageIDLength)
        productID = try? object.int("productId", in: Values.idRange)
        orders = ((try? object.objects("orders", count: 1...StockCommand.maximumOrders)) ?? []).compactMap { order in
            guard let id = try? order.int("orderId", in: Values.idRange) else { return nil }
            // The key of an order's first run follows from its id, and an order that is in another run by now ignores the answer. A key that is no order's own
            // is replaced by that: the order server could not read a result with it, and none of the message's orders would be told.
            let own = (try? order.string("key", length: Values.keyLength)).flatMap { StockKey.run(of: $0, order: id) == nil ? nil : $0 }
            return Order(id: id, key: own ?? StockKey.decrease(order: id, run: 1))
        }
    }
}
