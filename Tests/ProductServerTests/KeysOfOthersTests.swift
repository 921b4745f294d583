import Eventually
import HotPath
import HTTPTypes
import MessageBroker
import ServerKit
import StockContract
import StockGate
import StrictJSON
import Testing

@testable import ProductServer

/// A key that the ledger knew before the order was made belongs to another order.
@Suite(.serialized, .timeLimit(.minutes(10)))
struct KeysOfOthersTests {
    private func headers(since: Timestamp?, attempt: Int) throws -> HTTPFields {
        var headers = HTTPFields()
        if let since { headers[.idempotencySince] = since.description }
        headers[.idempotencyAttempt] = String(attempt)
        return headers
    }

    @Test(
        "a row older than the order is KEY_REUSED, one by one and in a batch; the order's own is replayed; without a time nothing is compared",
        arguments: ["REDIS_FIRST", "DB_ONLY"]
    )
    func overHTTP(strategy: String) async throws {
        try await ProductServerFixture.with { server in
            let id = try await server.addProduct(stock: 10, strategy: strategy)
            let path = "/products/\(id)/stock/decrease-by-order"
            let body = #"{"orderId":1,"quantity":1}"#
            // From before the row, however long the calls take: ten seconds are tolerated.
            var made = Timestamp.now
            #expect(try await server.ask(.patch, path, body, key: "DEC-1").status == 200)
            for attempt in 1...2 {
                for (delay, status) in [(nil, 200), (Duration.seconds(-60), 200), (.seconds(2), 200), (.seconds(3600), 422)] {
                    let since = delay.map { made.advanced(by: $0) }
                    let headers = try self.headers(since: since, attempt: attempt)
                    let one = try await server.ask(.patch, path, body, key: "DEC-1", headers: headers)
                    #expect(one.status == status, "\(attempt) \(since as Any): \(one.body)")
                    #expect(one.error == (status == 200 ? nil : "KEY_REUSED"))
                    #expect(one.headers[.idempotencyReplayed] == (status == 200 ? "true" : nil))
                    let time = since.map { #","since":"\#($0)""# } ?? ""
                    let batch = try await server.ask(
                        .post,
                        "/internal/stock/batch",
                        #"{"items":[{"direction":"OUT","productId":\#(id),"orderId":1,"quantity":1,"key":"DEC-1","attempt":\#(attempt)\#(time)}]}"#,
                        admin: true
                    )
                    guard case .array(let items)? = batch["items"], let item = items.first else {
                        throw ProductServerFixture.Missing(what: batch.body)
                    }
                    #expect(item["status"] == .int(Int64(status)), "\(attempt) \(since as Any): \(batch.body)")
                    #expect(item["replayed"] == (status == 200 ? true : nil))
                }
            }
            // A key that is closed is compared as well: an earlier order's final no is none for this one.
            made = Timestamp.now
            _ = try await server.ask(.patch, "/products/\(id)/stock/increase-by-order", #"{"orderId":2,"quantity":1}"#, key: "INC-2")
            for (delay, error) in [(Duration.seconds(0), "KEY_CLOSED"), (.seconds(3600), "KEY_REUSED")] {
                let closed = try await server.ask(
                    .patch,
                    path,
                    #"{"orderId":2,"quantity":1}"#,
                    key: "DEC-2",
                    headers: try headers(since: made.advanced(by: delay), attempt: 2)
                )
                #expect(closed.error == error)
            }
            var wrong = HTTPFields()
            wrong[.idempotencySince] = "yesterday"
            let refused = try await server.ask(.patch, path, body, key: "DEC-1", headers: wrong)
            #expect(refused.status == 400 && refused.error == "VALIDATION_ERROR" && refused.body.contains("Idempotency-Since"))
            #expect(try await server.ask(.get, "/products/\(id)")["stock"] == 9)
        }
    }

    @Test(
        "over the broker: a delivery, the first as well, commits under a key that has sold, unless the row is older than the command"
    )
    func overTheBroker() async throws {
        try await ProductServerFixture.with { server in
            let product = try await server.addProduct(stock: 10)
            let path = "/products/\(product)/stock/decrease-by-order"
            let made = Timestamp.now
            for order in 1...4 {
                #expect(try await server.ask(.patch, path, #"{"orderId":\#(order),"quantity":1}"#, key: "DEC-\(order)").status == 200)
            }
            let engine = server.engine
            let broker = ScriptedBroker()
            try await DecreaseConsumerTests.consuming(
                broker,
                decide: { engine.decrease($0, on: $2, isPatient: $1, completion: $3) }
            ) { _ in
                let command = { (id: Int, order: Int, since: Duration) in
                    StockCommandTests.body(
                        messageID: "\"\(id)\"",
                        product: String(product),
                        time: "\"\(made.advanced(by: since))\"",
                        orders: #"[{"orderId":\#(order),"key":"DEC-\#(order)","quantity":1}]"#
                    )
                }
                broker.enqueue([command(1, 1, .zero), command(4, 4, .seconds(3600))])
                broker.enqueue([command(2, 2, .zero), command(3, 3, .seconds(3600))], headers: ["attempt": .integer(2)])
                try await eventually("four results") { broker.results.count == 4 }
                let results = try DecreaseConsumerTests.results(broker.results).sorted { $0.order < $1.order }
                #expect(results.map(\.outcome) == ["COMMITTED", "COMMITTED", "REFUSED", "REFUSED"])
                #expect(results.map(\.reason) == [nil, nil, "KEY_REUSED", "KEY_REUSED"])
            }
            #expect(try await server.ask(.get, "/products/\(product)")["stock"] == 6)
        }
    }

    @Test("a message's id that comes round again with another time is no copy")
    func messages() throws {
        var seen = RecentMessages()
        let first = try StockCommand(Array(DecreaseConsumerTests.command(1, product: 1, orders: [1]).utf8))
        var later = first
        later.time = first.time.advanced(by: .seconds(60))
        let isNew = [first, first, later].map { seen.insert($0.identity) }
        #expect(isNew == [true, false, true])
    }
}
