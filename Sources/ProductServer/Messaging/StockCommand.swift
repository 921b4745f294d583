import APIErrors
import MessageBroker
import ServerKit
import StockGate
import StrictJSON

/// A message of the queue `stock.decrease`: the decreases of one group of orders for one product. `docs/messages.md` has its schema.
struct StockCommand: Sendable, Equatable {
    /// The version that this server understands.
    static let version: Int64 = 1
    /// The message's type.
    static let type = "stock.decrease"
    /// Orders in one message at most: the largest group that an order server writes.
    static let maximumOrders = 8_192
    /// Bytes of a body at most: the largest group with keys and buyers of a common size, several times over.
    static let maximumBytes = 16 << 20
    /// Characters of a message's id: `R-` and it still fit a name on the wire.
    static let messageIDLength = 1...200

    /// One order's decrease.
    struct Order: Sendable, Equatable {
        var id: Int64
        var key: String
        var quantity: Int64
    }

    var messageID: String
    var product: ProductID
    /// When the order server wrote it.
    var time: Timestamp
    var orders: [Order]

    /// What tells this message from every other. The id alone does not: ids of messages come round again when an order database is restored.
    var identity: String { "\(messageID) \(time.microsecondsSinceEpoch)" }

    /// Reads a message strictly: what cannot be read as a whole is poison as a whole.
    init(_ body: [UInt8]) throws(PoisonCommand) {
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
        // First of all: everything else may mean something else in another version.
        let version = try object.int("version", in: 1...Int64.max)
        guard version == Self.version else { throw .invalid(field: "version") }
        guard try object.string("type", length: 1...64) == Self.type else { throw .invalid(field: "type") }
        messageID = try object.string("messageId", length: Self.messageIDLength)
        product = ProductID(try object.int("productId", in: Values.idRange))
        guard let time = Timestamp(rfc3339: try object.string("time", length: 20...40)) else { throw .invalid(field: "time") }
        self.time = time
        orders = try object.objects("orders", count: 1...Self.maximumOrders).map { order throws(APIError) in
            _ = try order.optionalString("buyerId", length: Values.userIDLength)
            let key = try Values.idempotencyKey(try order.string("key", length: 1...255), field: "key")
            return Order(
                id: try order.int("orderId", in: Values.idRange),
                key: try StockRequest.decreaseKey(key),
                quantity: try order.int("quantity", in: Values.quantityRange)
            )
        }
    }
}

/// A message that nobody can ever act on, and what could be read of it.
struct PoisonCommand: Error, Equatable {
    /// An order that the message names, so that it can be told.
    struct Order: Sendable, Equatable {
        var id: Int64
        var key: String
    }

    /// The error code that the orders fail with.
    var reason: APIErrorCode
    /// What is wrong, for whoever reads the dead letter.
    var detail: String
    var messageID: String?
    var product: Int64?
    /// Empty if no id could be read.
    var orders: [Order] = []

    init(reason: APIErrorCode, detail: String) {
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
        product = try? object.int("productId", in: Values.idRange)
        orders = ((try? object.objects("orders", count: 1...StockCommand.maximumOrders)) ?? []).compactMap { order in
            guard let id = try? order.int("orderId", in: Values.idRange) else { return nil }
            // The key of an order's first run follows from its id. An order that is in another run by now ignores the answer. A key that is no order's own is not passed on:
            // the order server could not read the result, and no other order in it would be told.
            let key = (try? order.string("key", length: 1...255)).flatMap { Self.isKey($0, ofOrder: id) ? $0 : nil } ?? "DEC-\(id)"
            return Order(id: id, key: key)
        }
    }

    /// Whether it is `DEC-{id}` or, of a later run, `DEC-{id}.{n}`.
    private static func isKey(_ key: String, ofOrder id: Int64) -> Bool {
        let own = "DEC-\(id)"
        guard key.hasPrefix(own) else { return false }
        let rest = key.dropFirst(own.count)
        return rest.isEmpty || rest.first == "." && Values.id(rest.dropFirst()).map { $0 > 1 } ?? false
    }
}

/// A delivery and what it says.
struct IncomingCommand: Sendable {
    enum Content: Sendable {
        case command(StockCommand)
        case poison(PoisonCommand)
    }

    let delivery: Delivery
    let content: Content
    /// Whether the orders may have been decided before: the ledger decides them, Redis never rejects them.
    let isRepeat: Bool

    /// - Parameter isCopy: whether this message was seen before
    init(_ delivery: Delivery, isCopy: (StockCommand) -> Bool = { _ in false }) {
        self.delivery = delivery
        var isRepeat = delivery.isRedelivered || delivery.deliveryCount > 0 || (delivery.headers["attempt"]?.integer ?? 1) > 1
        do throws(PoisonCommand) {
            let command = try StockCommand(delivery.body)
            content = .command(command)
            if isCopy(command) { isRepeat = true }
        } catch {
            content = .poison(error)
        }
        self.isRepeat = isRepeat
    }

    /// Orders to decide; none in poison.
    var orderCount: Int {
        if case .command(let command) = content { command.orders.count } else { 0 }
    }
}
