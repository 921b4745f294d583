package import APIErrors
import HotPath
package import StrictJSON

/// The call by which the order server asks for many changes of stock at once. Each item is a request of its own, with the same promises as one that comes
/// alone and an answer of its own.
package enum StockBatch {
    /// On the product server's admin port.
    package static let path = "/internal/stock/batch"
    /// Items in one call at most: the product server refuses more, the order server cuts its batches to it.
    package static let maximumItems = 512
    /// Bytes of a call's body at most.
    package static let maximumBytes = 256 * 1024
    /// Bytes of a call besides its items: `{"items":[` and `]}`.
    package static let frameBytes = 12

    /// A call as it is sent.
    /// - Parameter capacity: bytes that it has at most
    package static func call(_ changes: some Sequence<StockChange>, capacity: Int) -> JSONWriter {
        var json = JSONWriter(capacity: capacity)
        json.object { json in
            json.array("items", changes) { json, change in change.write(to: &json) }
        }
        return json
    }

    /// The items of a call, each to be read by ``StockChange/init(_:)``, so that a malformed one is refused alone.
    /// - Throws: `VALIDATION_ERROR` for a body without a list of 1 to ``maximumItems`` objects
    package static func items(of body: JSONObjectReader) throws(APIError) -> [JSONObjectReader] {
        try body.objects("items", count: 1...self.maximumItems)
    }

    /// The answer to a call as it is sent, an item's answer for each item.
    @inlinable
    package static func answer(_ answers: some Sequence<StockItemAnswer>, to json: inout JSONWriter) {
        json.object { json in
            json.name("items")
            json.array(answers) { json, answer in answer.write(to: &json) }
        }
    }

    /// Reads the answer to a call with so many items; nil if it is none.
    package static func answers(_ body: JSONObjectReader, count: Int) -> [StockItemAnswer]? {
        guard count > 0, let items = try? body.objects("items", count: count...count) else { return nil }
        return items.map { StockItemAnswer(item: $0) }
    }
}

/// One change of stock to ask the product server for.
package struct StockChange: Sendable, Equatable {
    package enum Direction: String, Sendable, CaseIterable {
        /// A decrease.
        case out = "OUT"
        /// An increase, which compensates a decrease.
        case `in` = "IN"
    }

    package var direction: Direction
    package var productID: Int64
    package var orderID: Int64
    /// Units.
    package var quantity: Int64
    /// `DEC-…` or `INC-…`.
    package var key: String
    /// The caller's attempt, from 1. From the second attempt on the ledger decides, and its *no* is final.
    package var attempt: Int64
    /// `X-Request-Id` of the request that the change is made for, at most 128 of `A-Z a-z 0-9 . _ : -`.
    package var requestID: String?
    /// When the order was made. A row that the ledger has under the key since long before then belongs to another order.
    package var since: Timestamp?

    package init(
        direction: Direction,
        productID: Int64,
        orderID: Int64,
        quantity: Int64,
        key: String,
        attempt: Int64,
        requestID: String? = nil,
        since: Timestamp? = nil
    ) {
        self.direction = direction
        self.productID = productID
        self.orderID = orderID
        self.quantity = quantity
        self.key = key
        self.attempt = attempt
        self.requestID = requestID
        self.since = since
    }

    // MARK: Writing

    /// Writes the change as an item of a call.
    package func write(to json: inout JSONWriter) {
        json.object { json in
            json.member("direction", direction.rawValue)
            json.member("productId", productID)
            json.member("orderId", orderID)
            json.member("quantity", quantity)
            json.member("key", key)
            json.member("attempt", attempt)
            if let since { json.member("since", since) }
            if let requestID { json.member("requestId", requestID) }
        }
    }

    /// Bytes of the change in a call, never less than it has there: the numbers count with all the digits that they may have.
    package var maximumWireBytes: Int {
        let frame: StaticString = #"{"direction":"OUT","productId":,"orderId":,"quantity":,"key":"","attempt":},"#
        let id: StaticString = #","requestId":"""#
        let time: StaticString = #","since":"2026-01-31T09:30:00.123456Z""#
        var bytes = frame.utf8CodeUnitCount + 4 * 19 + StockChange.escapedBytes(key)
        if since != nil { bytes += time.utf8CodeUnitCount }
        if let requestID { bytes += id.utf8CodeUnitCount + StockChange.escapedBytes(requestID) }
        return bytes
    }

    /// Bytes of a text in JSON, without its quotes.
    private static func escapedBytes(_ text: String) -> Int {
        text.utf8.reduce(0) { bytes, byte in
            switch byte {
            // The longest escape, \u and four digits.
            case 0..<0x20, 0x7F: bytes + 6
            case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): bytes + 2
            default: bytes + 1
            }
        }
    }

    // MARK: Reading

    /// The `requestId` of an item, which is worth knowing also where the rest cannot be read.
    /// - Throws: `VALIDATION_ERROR`
    package static func requestID(of item: JSONObjectReader) throws(APIError) -> String? {
        let id = try item.text("requestId")
        guard id.map({ HotRequestID.isRequestID($0.utf8) }) ?? true else { throw .invalid(field: item.path("requestId")) }
        return id
    }

    /// Reads an item of a call.
    /// - Throws: `VALIDATION_ERROR`
    package init(_ item: JSONObjectReader) throws(APIError) {
        requestID = try Self.requestID(of: item)
        productID = try item.int("productId", in: Values.idRange)
        orderID = try item.int("orderId", in: Values.idRange)
        quantity = try item.int("quantity", in: Values.quantityRange)
        let key = try Values.idempotencyKey(try item.string("key", length: Values.keyLength), field: "key")
        attempt = try item.optionalInt("attempt", in: Values.attemptRange) ?? 1
        since = nil
        if let text = try item.text("since") {
            guard let time = Timestamp(rfc3339: text) else { throw .invalid(field: item.path("since")) }
            since = time
        }
        if item.isText("direction", "OUT") {
            direction = .out
        } else {
            direction = try item.choice("direction", Direction.self)
        }
        self.key = direction == .out ? try StockKey.checkedDecrease(key) : try StockKey.checkedIncrease(key)
    }
}

/// What the product server says to one item of a call.
package struct StockItemAnswer: Sendable, Equatable {
    /// The HTTP status that the item would be answered with if it came alone; 0 for an answer that could not be read.
    package var status: Int
    /// Units left, in an answer with status 200.
    package var remainingStock: Int64?
    /// In an answer with status 200: whether an earlier call had made the change.
    package var isReplayed: Bool
    /// For people.
    package var message: String?
    /// The error code.
    package var error: String?
    /// Seconds until the same is worth asking again, where the product server knows.
    package var retryAfter: Int64?

    /// The change is done.
    package init(remainingStock: Int64, isReplayed: Bool, message: String) {
        status = 200
        self.remainingStock = remainingStock
        self.isReplayed = isReplayed
        self.message = message
        self.error = nil
        retryAfter = nil
    }

    /// The change is refused, or nothing is known about it.
    package init(_ refusal: APIError, language: Language) {
        status = refusal.code.status
        remainingStock = nil
        isReplayed = false
        message = refusal.message.text(language, details: refusal.details)
        self.error = refusal.code.rawValue
        retryAfter = refusal.retryAfter.map { $0.components.seconds }
    }

    /// Writes the answer as an item of the call's answer.
    package func write(to json: inout JSONWriter) {
        json.object { json in
            json.member("status", status)
            if let error {
                json.member("error", error)
                json.member("message", message)
                json.member("retryAfter", retryAfter)
            } else {
                json.member("remainingStock", remainingStock)
                json.member("replayed", isReplayed)
                json.member("message", message)
            }
        }
    }

    /// Reads an item of the call's answer. What cannot be understood is missing: the caller takes it for no answer.
    package init(item: JSONObjectReader) {
        status = Int((try? item.int("status", in: 100...599)) ?? 0)
        remainingStock = try? item.int("remainingStock", in: Values.remainingRange)
        isReplayed = item.value("replayed") == true
        message = (try? item.text("message")) ?? nil
        self.error = (try? item.text("error")) ?? nil
        retryAfter = (try? item.optionalInt("retryAfter", in: 0...86_400)) ?? nil
    }
}
