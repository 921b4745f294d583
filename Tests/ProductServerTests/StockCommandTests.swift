import APIErrors
import MessageBroker
import ServerKit
import ServerMetrics
import StockContract
import StockGate
import StrictJSON
import Testing

@testable import MessageBroker
@testable import ProductServer

@Suite struct StockCommandTests {
    static let order = #"{"orderId":7,"key":"DEC-7","quantity":3,"buyerId":"u-1"}"#

    static func body(
        version: String = "1",
        type: String = #""stock.decrease""#,
        messageID: String = #""42""#,
        product: String = "1",
        time: String = #""2026-01-31T09:30:00.123456Z""#,
        orders: String = "[\(order)]"
    ) -> String {
        "{\"version\":\(version),\"type\":\(type),\"messageId\":\(messageID),\"productId\":\(product),\"time\":\(time),\"orders\":\(orders)}"
    }

    @Test func aMessageIsRead() throws {
        let orders = #"[{"orderId":7,"key":"DEC-7","quantity":3,"buyerId":null,"more":[]},{"orderId":8,"key":"DEC-8.2","quantity":1}]"#
        let command = try StockCommand(Array(Self.body(orders: orders).utf8))
        #expect(command.messageID == "42" && command.productID == 1)
        #expect(command.time.description == "2026-01-31T09:30:00.123456Z")
        #expect(command.orders == [.init(id: 7, key: "DEC-7", quantity: 3), .init(id: 8, key: "DEC-8.2", quantity: 1)])
        let whole = try StockCommand(Array(Self.body(time: #""2026-01-31T09:30:00Z""#).utf8))
        #expect(whole.time.description == "2026-01-31T09:30:00.000000Z")
    }

    /// Each is poison, and names what is wrong and whom it concerns.
    @Test(arguments: [
        ("", "", 0), ("{", "", 0), ("[]", "", 0), ("{}", "version", 0), ("\u{0}", "", 0),
        (body(version: "2"), "version", 1), (body(version: "1.0"), "version", 1), (body(version: "null"), "version", 1),
        (body(type: #""stock.increase""#), "type", 1), (body(type: "1"), "type", 1),
        (body(messageID: "42"), "messageId", 1), (body(messageID: #""""#), "messageId", 1),
        (body(product: "0"), "productId", 1), (body(product: #""1""#), "productId", 1),
        (body(time: #""yesterday, at half past nine""#), "time", 1), (body(time: "0"), "time", 1),
        (body(time: #""300000-01-01T00:00:00Z""#), "time", 1), (body(time: #""+300000-01-01T00:00:00Z""#), "time", 1),
        (body(time: #""292277026596-12-04T15:30:07Z""#), "time", 1), (body(time: #""9223372036854775807""#), "time", 1),
        (body(time: "9223372036854775807"), "time", 1), (body(version: "9223372036854775807"), "version", 1),
        (body(version: "9223372036854775808"), "version", 1), (body(version: "-9223372036854775808"), "version", 1),
        (body(product: "9223372036854775808"), "productId", 1), (body(product: "-9223372036854775808"), "productId", 1),
        (body(product: "1e400"), "productId", 1),
        (body(orders: #"[{"orderId":9223372036854775808,"key":"DEC-7","quantity":1}]"#), "orderId", 0),
        (body(orders: #"[{"orderId":7,"key":"DEC-7","quantity":9223372036854775807}]"#), "quantity", 1),
        (body(orders: #"[{"orderId":7,"key":"DEC-7","quantity":-9223372036854775808}]"#), "quantity", 1),
        (body(orders: "[]"), "orders", 0), (body(orders: "{}"), "orders", 0), (body(orders: "[7]"), "orders", 0),
        (body(orders: #"[{"orderId":7,"key":"DEC-7","quantity":0}]"#), "quantity", 1),
        (body(orders: #"[{"orderId":7,"key":"INC-7","quantity":1}]"#), "", 1),
        (body(orders: #"[{"orderId":7,"quantity":1}]"#), "key", 1),
        (body(orders: #"[{"orderId":0,"key":"DEC-7","quantity":1},{"orderId":8,"key":"DEC-8","quantity":1}]"#), "orderId", 1),
        (body(orders: #"[{"orderId":7,"orderId":8,"key":"DEC-7","quantity":1}]"#), "", 0),
    ])
    func poison(body: String, field: String, orders: Int) {
        do {
            _ = try StockCommand(Array(body.utf8))
            Issue.record("read: \(body)")
        } catch {
            #expect(error.reason == .validationError)
            #expect(field.isEmpty || error.detail.contains(field), "\(error.detail)")
            #expect(error.orders.count == orders, "\(body)")
        }
    }

    /// Everything at its end that a command may hold.
    @Test(arguments: ["0000-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "2026-01-31T18:30:00+09:00"])
    func theEndsOfACommandAreRead(_ time: String) throws {
        let command = try StockCommand(
            Array(
                Self.body(
                    product: "9223372036854775807",
                    time: "\"\(time)\"",
                    orders: #"[{"orderId":9223372036854775807,"key":"DEC-9223372036854775807","quantity":1000000000}]"#
                ).utf8
            )
        )
        #expect(command.productID == .max && command.orders[0].id == .max)
        let figures = CommandMetrics(registry: MetricsRegistry())
        for count in [Int64.min, -1, .max] {
            let delivery = IncomingCommand(
                Delivery(
                    Array(Self.body(time: "\"\(time)\"").utf8),
                    headers: ["attempt": .integer(count), "x-delivery-count": .integer(count)]
                )
            )
            figures.received(delivery)
            figures.finished(delivery)
        }
    }

    @Test func aBodyBeyondTheBoundIsPoison() {
        let body = [UInt8](repeating: 0x20, count: StockCommand.maximumBytes + 1)
        #expect(throws: PoisonCommand.self) { try StockCommand(body) }
    }

    @Test func whatMakesARepeat() {
        let body = Array(Self.body().utf8)
        #expect(!IncomingCommand(Delivery(body)).isRepeat)
        #expect(!IncomingCommand(Delivery(body, headers: ["attempt": 1])).isRepeat)
        #expect(IncomingCommand(Delivery(body, headers: ["attempt": 2])).isRepeat)
        #expect(IncomingCommand(Delivery(body, isRedelivered: true)).isRepeat)
        #expect(IncomingCommand(Delivery(body, headers: ["x-delivery-count": 1])).isRepeat)
        #expect(IncomingCommand(Delivery(body), isCopy: { $0.messageID == "42" }).isRepeat)
    }

    @Test func theLastMessagesAreRemembered() {
        var recent = RecentMessages(capacity: 3)
        let isNew = ["a", "b", "c", "a", "c", "d", "a", "c", "d", "b"].map { recent.insert($0) }
        // With "d" the oldest, "a", was forgotten; with "a" again "b" was.
        #expect(isNew == [true, true, true, false, false, true, true, false, false, true])
    }

    @Test func theResultSaysWhatWasDecided() {
        let orders = #"[{"orderId":7,"key":"DEC-7","quantity":3},{"orderId":8,"key":"DEC-8","quantity":1}]"#
        let command = IncomingCommand(Delivery(Array(Self.body(orders: orders).utf8), headers: ["traceparent": "00-a-b-01"]))
        let messages = ResultMessages(
            command: command,
            verdicts: [.committed(remaining: 97), .refused(.insufficientStock, remaining: nil)]
        )
        let message = messages.message(.result, at: Timestamp(microsecondsSinceEpoch: 1_000_000))
        #expect(
            String(decoding: message.body, as: UTF8.self)
                == #"{"version":1,"type":"stock.result","messageId":"R-42","commandId":"42","productId":1,"time":"1970-01-01T00:00:01.000000Z","results":["#
                + #"{"orderId":7,"key":"DEC-7","outcome":"COMMITTED","reason":null,"remainingStock":97},"#
                + #"{"orderId":8,"key":"DEC-8","outcome":"REFUSED","reason":"INSUFFICIENT_STOCK","remainingStock":null}]}"#
        )
        #expect(message.exchange == "stock.results" && message.routingKey == "order.result" && message.isMandatory && message.isPersistent)
        #expect(message.messageID == "R-42" && message.correlationID == "42" && message.type == "stock.result")
        #expect(message.headers["traceparent"] == "00-a-b-01" && message.timestamp == 1)
    }

    @Test func aDeadLetterSaysWhy() {
        let command = IncomingCommand(Delivery(Array(Self.body(product: "0").utf8), headers: ["attempt": 3]))
        let messages = ResultMessages(command: command, verdicts: [])
        let dead = messages.message(.deadLetter, at: .now)
        #expect(dead.exchange == StockGateTopology.deadExchange && dead.body == command.delivery.body)
        #expect(dead.headers["reason"] == "VALIDATION_ERROR" && dead.headers["attempt"] == 3)
        #expect(dead.headers["detail"]?.string?.contains("productId") == true)
        let result = String(decoding: messages.message(.result, at: .now).body, as: UTF8.self)
        #expect(result.contains(#""commandId":"42","productId":null"#))
        #expect(result.contains(#"{"orderId":7,"key":"DEC-7","outcome":"REFUSED","reason":"VALIDATION_ERROR","remainingStock":null}"#))
    }
}
