// What a server knows of the orders in an event before the statement that changes them is sent: a draft, from which the relay makes the message.
//
// Invariant: a draft alone is no message. Only the orders that the statement has really changed become part of the message, with the time and the version that
//   the statement gave them.
//
// Form: JSON arrays with commas between them, one for each order: id, product, buyer, quantity, reason of the failure, product's code, price of a unit, run, and
//   the time when the order was made in microseconds since 1970 (null: it is made by this statement). The relay copies these texts into the message as they are.

import StockContract
import StrictJSON

/// Writes and reads the drafts of events.
enum EventDraft {
    /// Adds an order that was made before, as it will be.
    static func add(_ order: Order, failReason: String?, to json: inout JSONWriter) {
        json.array(CollectionOfOne(order)) { json, order in
            facts(
                order.id,
                order.productID,
                order.buyerID,
                order.quantity,
                failReason,
                order.productCode,
                order.unitPrice,
                order.run,
                to: &json
            )
            json.value(order.createdAt.microsecondsSinceEpoch)
        }
    }

    /// Adds an order that the statement makes.
    static func add(_ draft: OrderDraft, id: Int64, failReason: String?, to json: inout JSONWriter) {
        json.array(CollectionOfOne(draft)) { json, draft in
            facts(id, draft.productID, draft.buyerID, draft.quantity, failReason, draft.productCode, draft.unitPrice, 1, to: &json)
            json.null()
        }
    }

    private static func facts(
        _ id: Int64,
        _ product: Int64,
        _ buyer: String?,
        _ quantity: Int64,
        _ failReason: String?,
        _ code: String?,
        _ price: Int64?,
        _ run: Int64,
        to json: inout JSONWriter
    ) {
        json.value(id)
        json.value(product)
        if let buyer { json.value(buyer) } else { json.null() }
        json.value(quantity)
        if let failReason { json.value(failReason) } else { json.null() }
        if let code { json.value(code) } else { json.null() }
        if let price { json.value(price) } else { json.null() }
        json.value(run)
    }

    /// What the statement has made of a draft.
    struct Outcome: Sendable, Equatable {
        /// The id of the row.
        var id: Int64
        var topic: String
        /// When the orders were changed.
        var moment: Timestamp
        /// The orders that were really changed.
        var orders: [Int64]
        /// Their versions; nil if it is 1 for all of them.
        var versions: [Int64]?
    }

    /// The message, as ``OrderEvent/body`` has it.
    /// - Returns: nil if the row is none that a server writes
    static func message(_ draft: String, _ outcome: Outcome) -> String? {
        guard let kind = OrderEvent.Kind(rawValue: outcome.topic), !outcome.orders.isEmpty else { return nil }
        var versions: [Int64: Int64] = [:]
        if let given = outcome.versions {
            guard given.count == outcome.orders.count else { return nil }
            versions.reserveCapacity(given.count)
            for (id, version) in zip(outcome.orders, given) { versions[id] = version }
        } else {
            versions.reserveCapacity(outcome.orders.count)
            for id in outcome.orders { versions[id] = 1 }
        }
        var text = MessageText(kind, outcome.moment, capacity: 128 + 320 * outcome.orders.count)
        text.begin(outcome)
        var cursor = DraftCursor(draft)
        var written = 0
        // The loop ends with the draft: each turn takes one order from it.
        while let order = cursor.order() {
            guard let version = versions[order.id] else { continue }
            text.add(order, version, isFirst: written == 0)
            written += 1
        }
        // Every changed order is in the draft of its statement, and once.
        guard cursor.isAtEnd, written == versions.count else { return nil }
        return text.end()
    }
}

/// One order of a draft: the texts of its values.
private struct DraftedOrder {
    var id: Int64
    /// The values' texts, in their order.
    var values: [ArraySlice<UInt8>]
    /// When it was made; nil: by the statement.
    var created: Timestamp?
}

/// Goes through a draft.
private struct DraftCursor {
    private let bytes: [UInt8]
    private var place = 0
    private var values: [ArraySlice<UInt8>] = []

    init(_ draft: String) {
        bytes = Array(draft.utf8)
        values.reserveCapacity(9)
    }

    var isAtEnd: Bool { place == bytes.count }

    /// The next order; nil at the end of the draft, or if no order can be read here.
    mutating func order() -> DraftedOrder? {
        let start = place
        if place > 0, !take(UInt8(ascii: ",")) { return nil }
        values.removeAll(keepingCapacity: true)
        guard take(UInt8(ascii: "[")) else { return failed(start) }
        repeat {
            guard values.count < 9, let value = value() else { return failed(start) }
            values.append(value)
        } while take(UInt8(ascii: ","))
        guard take(UInt8(ascii: "]")), values.count == 9, let id = DraftCursor.number(values[0]) else { return failed(start) }
        if values[8].elementsEqual("null".utf8) { return DraftedOrder(id: id, values: values, created: nil) }
        guard let created = DraftCursor.number(values[8]) else { return failed(start) }
        return DraftedOrder(id: id, values: values, created: Timestamp(microsecondsSinceEpoch: created))
    }

    private mutating func failed(_ start: Int) -> DraftedOrder? {
        place = start
        return nil
    }

    private mutating func take(_ byte: UInt8) -> Bool {
        guard place < bytes.count, bytes[place] == byte else { return false }
        place += 1
        return true
    }

    /// A number, `null`, or a text in its quotes.
    private mutating func value() -> ArraySlice<UInt8>? {
        let start = place
        if take(UInt8(ascii: "\"")) {
            while place < bytes.count, bytes[place] != UInt8(ascii: "\"") {
                // What follows a backslash is no end.
                place += bytes[place] == UInt8(ascii: "\\") ? 2 : 1
            }
            return take(UInt8(ascii: "\"")) ? bytes[start..<place] : nil
        }
        while place < bytes.count, bytes[place] != UInt8(ascii: ","), bytes[place] != UInt8(ascii: "]") { place += 1 }
        return place > start ? bytes[start..<place] : nil
    }

    private static func number(_ text: ArraySlice<UInt8>) -> Int64? {
        var value: Int64 = 0
        var digits = text
        let isNegative = digits.first == UInt8(ascii: "-")
        if isNegative { digits = digits.dropFirst() }
        if digits.isEmpty { return nil }
        for digit in digits {
            guard digit >= UInt8(ascii: "0"), digit <= UInt8(ascii: "9") else { return nil }
            let (tenfold, isTooLarge) = value.multipliedReportingOverflow(by: 10)
            let (sum, isLarger) = tenfold.addingReportingOverflow(Int64(digit - UInt8(ascii: "0")))
            if isTooLarge || isLarger { return nil }
            value = sum
        }
        return isNegative ? -value : value
    }
}

/// A message that is being put together from texts that are JSON already.
private struct MessageText {
    private var bytes: [UInt8] = []
    private let kind: OrderEvent.Kind
    private let status: OrderStatus
    /// The time of the change.
    private let moment: [UInt8]
    private var lastCreated: (time: Timestamp, text: [UInt8])?

    init(_ kind: OrderEvent.Kind, _ moment: Timestamp, capacity: Int) {
        self.kind = kind
        status = OutboxSQL.status(of: kind)
        var text: [UInt8] = []
        moment.write(to: &text)
        self.moment = text
        bytes.reserveCapacity(capacity)
    }

    private mutating func add(_ text: StaticString) { text.withUTF8Buffer { bytes.append(contentsOf: $0) } }

    mutating func begin(_ outcome: EventDraft.Outcome) {
        add(#"{"version":1,"type":""#)
        bytes.append(contentsOf: kind.rawValue.utf8)
        add(#"","messageId":""#)
        bytes.append(contentsOf: String(outcome.id).utf8)
        add(#"","time":""#)
        bytes.append(contentsOf: moment)
        add(#"","orders":["#)
    }

    mutating func add(_ order: DraftedOrder, _ version: Int64, isFirst: Bool) {
        let values = order.values
        add(isFirst ? #"{"id":"# : #",{"id":"#)
        bytes.append(contentsOf: values[0])
        add(#","productId":"#)
        bytes.append(contentsOf: values[1])
        add(#","buyerId":"#)
        bytes.append(contentsOf: values[2])
        add(#","quantity":"#)
        bytes.append(contentsOf: values[3])
        add(#","status":""#)
        bytes.append(contentsOf: status.rawValue.utf8)
        add(#"","failReason":"#)
        bytes.append(contentsOf: values[4])
        add(#","createdAt":""#)
        bytes.append(contentsOf: order.created.map { text(of: $0) } ?? moment)
        add(#"","updatedAt":""#)
        bytes.append(contentsOf: moment)
        add(#"","productCode":"#)
        bytes.append(contentsOf: values[5])
        add(#","unitPrice":"#)
        bytes.append(contentsOf: values[6])
        add(#","run":"#)
        bytes.append(contentsOf: values[7])
        add(#","version":"#)
        bytes.append(contentsOf: String(version).utf8)
        add("}")
    }

    mutating func end() -> String {
        add("]}")
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Orders of one group were mostly made together.
    private mutating func text(of time: Timestamp) -> [UInt8] {
        if let lastCreated, lastCreated.time == time { return lastCreated.text }
        var text: [UInt8] = []
        time.write(to: &text)
        lastCreated = (time, text)
        return text
    }
}
