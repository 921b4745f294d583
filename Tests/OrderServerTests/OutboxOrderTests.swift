import MessageBroker
import NIOHTTP1
import PostgresClient
import ServerKit
import StrictJSON
import Testing

@testable import OrderServer

/// Orders over the broker beside those that go there by a call.
extension OutboxTests {
    @Test("under a user: 202 with its place, the product's code kept")
    func userOrders() async throws {
        try await run { bed, publisher, results in
            let body = #"{"productId":"CATALOG-002","qty":2,"unitPrice":900}"#
            let made = try await bed.send(.POST, "/u-9/orders", body, headers: ["prefer": "respond-async", "idempotency-key": "u"])
            #expect(made.status == 202)
            #expect(made.headers.first(name: "preference-applied") == "respond-async")
            let id = try await bed.count(
                "select id from orders where buyer_id = 'u-9' and product_code = 'CATALOG-002' and status = 'PENDING'"
            )
            #expect(made.headers.first(name: "location") == "/orders/\(id)")
            try await bed.wait("select count(*) from outbox where status <> 'SENT'", for: 0)
            #expect(publisher.commands.count == 1)
            results.put(result("COMMITTED", id))
            #expect(try await bed.send(.GET, "/orders/\(id)?wait=18s")["status"] == "CONFIRMED")
            let again = try await bed.send(.POST, "/u-9/orders", body, headers: ["prefer": "respond-async", "idempotency-key": "u"])
            #expect(again.status == 200)
            #expect(again.headers.first(name: "idempotency-replayed") == "true")
        }
    }

    @Test("a result that says sold out turns later orders away, without a row or a message")
    func soldOut() async throws {
        try await run(settings: ["SOLD_OUT_MEMORY": "1s"]) { bed, publisher, results in
            var answer = try await accept(bed)
            var rows: Int64 = 0
            let deadline = ContinuousClock.now + .seconds(60)
            // The memory lasts a second, half of it without a second look: on a busy machine an order may miss it, and is the next to be refused.
            repeat {
                let id = try self.id(answer)
                let refusal =
                    #"{"orderId":\#(id),"key":"DEC-\#(id)","outcome":"REFUSED","reason":"INSUFFICIENT_STOCK","remainingStock":0}"#
                results.put(
                    #"{"version":1,"type":"stock.result","commandId":"1","productId":1,"time":"\#(Timestamp.now)","results":[\#(refusal)]}"#
                )
                try await bed.wait("select count(*) from orders where status = 'FAILED' and id = \(id)", for: 1)
                rows = try await bed.count("select count(*) from orders")
                answer = try await accept(bed)
            } while answer.status == 202 && ContinuousClock.now < deadline
            #expect(answer.status == 400)
            #expect(answer["error"] == "INSUFFICIENT_STOCK")
            #expect(try await bed.count("select count(*) from orders") == rows)
            // The memory is short.
            let until = ContinuousClock.now + .seconds(60)
            while try await accept(bed).status != 202, ContinuousClock.now < until {}
            #expect(try await bed.count("select count(*) from orders") == rows + 1)
            _ = publisher
        }
    }

    @Test("POST /orders with the key of an old order that waits for its message settles it, as a repeat; its result changes nothing more")
    func synchronousRepeat() async throws {
        try await run { bed, publisher, results in
            publisher.set { $0.isConnected = false }
            let body = #"{"productId":1,"quantity":3}"#
            let made = try await bed.send(.POST, "/v2/orders", body, headers: ["idempotency-key": "k"])
            let id = try self.id(made)
            let young = try await bed.send(.POST, "/orders", body, headers: ["idempotency-key": "k"])
            // Still under way, settled after its deadline, or, on a busy machine, told at its deadline while its work goes on.
            #expect([200, 409, 503].contains(young.status))
            _ = try await bed.pool.query("update orders set created_at = now() - interval '1 hour', updated_at = now() - interval '1 hour'")
            let repeated = try await bed.send(.POST, "/orders", body, headers: ["idempotency-key": "k"])
            #expect(repeated.status == 200)
            #expect(repeated["id"] == made["id"])
            #expect(repeated["status"] == "CONFIRMED")
            let calls = bed.product.seen
            #expect(Set(calls) == ["OUT DEC-\(id) 2"] && (young.status == 503 ? calls.count <= 2 : calls.count == 1), "\(calls)")
            publisher.set { $0.isConnected = true }
            try await bed.wait("select count(*) from outbox where status <> 'SENT'", for: 0)
            #expect(publisher.commands.count == 1, "the command goes out all the same: the ledger knows its key")
            results.put(result("COMMITTED", id))
            try await results.waitUntilAcknowledged(1)
            try await bed.wait(metric: "stockgate_order_results_duplicate_total 1")
            #expect(try await bed.count("select version from orders") == 2)
        }
    }

    @Test("results at their ends come with innocent ones: what cannot be read goes to the dead letters alone")
    func ends() async throws {
        try await run { bed, publisher, results in
            var ids: [Int64] = []
            for _ in 0..<4 { ids.append(try self.id(try await accept(bed))) }
            func result(_ id: String, key: String? = nil, time: String, product: String = "1", remaining: String = "null") -> String {
                """
                {"version":1,"type":"stock.result","commandId":"1","productId":\(product),"time":"\(time)","results":[{"orderId":\(id),\
                "key":"\(key ?? "DEC-\(id)")","outcome":"COMMITTED","reason":null,"remainingStock":\(remaining)}]}
                """
            }
            let bad = [
                result("\(ids[3])", time: "300000-01-01T00:00:00Z"), result("\(ids[3])", time: "+300000-01-01T00:00:00.000000Z"),
                result("9223372036854775808", time: "\(Timestamp.now)"),
                result("\(ids[3])", time: "\(Timestamp.now)", product: "-9223372036854775808"),
                result("\(ids[3])", time: "\(Timestamp.now)", remaining: "-9223372036854775808"),
            ]
            let good = [
                result("\(ids[0])", time: "0000-01-01T00:00:00Z"),
                result("\(ids[1])", time: "9999-12-31T23:59:59Z", product: "9223372036854775807"),
                result("\(ids[2])", time: "\(Timestamp.now)", remaining: "9223372036854775807"),
                result("9223372036854775807", key: "DEC-9223372036854775807.9223372036854775807", time: "\(Timestamp.now)"),
            ]
            for (index, body) in bad.enumerated() {
                results.put(body)
                if index < good.count { results.put(good[index]) }
            }
            try await bed.wait("select count(*) from orders where status = 'CONFIRMED'", for: 3)
            try await results.waitUntilAcknowledged(bad.count + good.count)
            #expect(results.acknowledged == bad.count + good.count)
            let dead = publisher.sent.filter { $0.exchange == "stock.dead" }
            #expect(dead.count == bad.count)
            #expect(dead.allSatisfy { $0.headers["reason"] == .string("VALIDATION_ERROR") })
            #expect(try await bed.count("select count(*) from orders where status = 'PENDING'") == 1)
            try await bed.wait(metric: "stockgate_order_results_unexpected_total 1")
        }
    }

    @Test("a refusal that leaves more than anybody can want says nothing about buyers that come now")
    func endlessRefusal() async throws {
        try await run(settings: ["SOLD_OUT_MEMORY": "1s"]) { bed, _, results in
            let id = try self.id(try await accept(bed))
            let refusal =
                #"{"orderId":\#(id),"key":"DEC-\#(id)","outcome":"REFUSED","reason":"INSUFFICIENT_STOCK","remainingStock":9223372036854775807}"#
            results.put(
                #"{"version":1,"type":"stock.result","commandId":"1","productId":1,"time":"\#(Timestamp.now)","results":[\#(refusal)]}"#
            )
            // Acknowledged after it was remembered.
            try await results.waitUntilAcknowledged(1)
            #expect(try await bed.count("select count(*) from orders where status = 'FAILED'") == 1)
            #expect(try await accept(bed).status == 202)
        }
    }

    @Test("the result of a command that could not be read, without its id and product, fails the orders it names")
    func poisonedCommand() async throws {
        try await run { bed, publisher, results in
            let id = try self.id(try await accept(bed))
            results.put(
                """
                {"version":1,"type":"stock.result","messageId":"R-unknown","commandId":null,"productId":null,"time":"2026-01-31T09:30:00Z",\
                "results":[{"orderId":\(id),"key":"DEC-\(id)","outcome":"REFUSED","reason":"VALIDATION_ERROR","remainingStock":null}]}
                """
            )
            try await bed.wait("select count(*) from orders where status = 'FAILED' and fail_reason = 'VALIDATION_ERROR'", for: 1)
            #expect(!publisher.sent.contains { $0.exchange == "stock.dead" })
        }
    }
}
