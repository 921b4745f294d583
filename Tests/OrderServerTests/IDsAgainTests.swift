import NIOCore
import NIOHTTP1
import PostgresClient
import ServerKit
import StrictJSON
import Synchronization
import Testing

@testable import OrderServer

/// The order database was restored, or its sequences are behind: ids come round again, and the ledger knows their keys.
@Suite("Order ids come round again", .serialized, .timeLimit(.minutes(3)))
struct IDsAgainTests {
    /// As a restore to an empty backup leaves the database.
    private func restore(_ bed: TestBed) async throws {
        _ = try await bed.pool.query("delete from orders")
        _ = try await bed.pool.query("delete from saga_work")
        _ = try await bed.pool.query("delete from outbox")
        _ = try await bed.pool.query("select setval('order_ids', 1, false), setval('outbox_ids', 1, false)")
    }

    private func metric(_ bed: TestBed, _ name: String, of server: TestBed.Server) async throws -> Int {
        let answer = try await server.admin.call(.init(method: .GET, path: "/metrics"), timeout: .seconds(20)).get()
        let line = String(buffer: answer.body).split(separator: "\n").first { $0.hasPrefix(name + " ") }
        return line.flatMap { $0.split(separator: " ").last }.flatMap { Int($0) } ?? -1
    }

    @Test(
        "each order takes a unit of its own under another key, or is told that it is sold out; a cancellation gives back one",
        arguments: [true, false]
    )
    func restored(inBatches: Bool) async throws {
        let settings = inBatches ? [:] : ["PRODUCT_INTERNAL_URL": ""]
        try await TestBed.run(stock: [1: 10], settings: ["SOLD_OUT_MEMORY": "0s"].merging(settings) { $1 }) { bed in
            for _ in 0..<5 { #expect(try await bed.place(1)["status"] == "CONFIRMED") }
            #expect(bed.product.stock(1) == 5)
            await bed.servers[0].stop()
            try await restore(bed)
            let server = try await bed.start(["SOLD_OUT_MEMORY": "0s"].merging(settings) { $1 })
            let send = { (path: String, body: String?) in try await TestBed.send(server.peer, .POST, path, body) }
            var answers: [TestBed.Answer] = []
            for _ in 0..<10 { answers.append(try await send("/orders", #"{"productId":1,"quantity":1,"buyerId":"u-001"}"#)) }
            #expect(answers.filter { $0.status == 200 && $0["status"] == "CONFIRMED" }.count == 5)
            #expect(answers.filter { $0.status == 400 && $0["error"] == "INSUFFICIENT_STOCK" }.count == 5)
            #expect(bed.product.stock(1) == 0)
            #expect(try await bed.count("select count(*) from orders where status = 'CONFIRMED' and run >= \(Order.firstOtherRun)") == 5)
            #expect(try await metric(bed, "stockgate_orders_key_taken_total", of: server) == 5)
            let id = try #require(answers.first?.id)
            #expect(try await send("/orders/\(id)/cancel", nil)["status"] == "CANCELLED")
            #expect(bed.product.stock(1) == 1)
            let after = [
                try await send("/orders", #"{"productId":1,"quantity":1}"#), try await send("/orders", #"{"productId":1,"quantity":1}"#),
            ]
            #expect(after.map(\.status) == [200, 400])
            // Ten units: five sold before the restore, five now, one of which was given back and sold again.
            #expect(try await bed.count("select count(*) from orders where status = 'CONFIRMED'") == 5)
            await server.stop()
        }
    }

    @Test("a repeat that finds its own first attempt done confirms under its own key, after a lost answer and after a crash")
    func repeatsConfirm() async throws {
        try await TestBed.run(stock: [1: 10]) { bed in
            bed.product.script(.dropAfter)
            let made = try await bed.place(1)
            #expect(made["status"] == "CONFIRMED")
            let id = try made.orderID
            #expect(bed.product.seen.contains("OUT DEC-\(id) 2"))
            bed.product.state.withLock { $0.taken["DEC-7000"] = 1 }
            _ = try await bed.pool.query(
                "insert into orders (id, product_id, quantity, status, created_at) values (7000, 1, 1, 'PENDING', now() - interval '1 hour')"
            )
            // On recovery's list: a round that began before the order was there would move the mark past it. A round that begins now may find it by its age first.
            _ = try await bed.pool.query("insert into saga_work (order_id, due_at) values (7000, now()) on conflict do nothing")
            try await bed.wait("select count(*) from orders where id = 7000 and status = 'CONFIRMED' and run = 1", for: 1)
            #expect(bed.product.stock(1) == 9)
            #expect(try await bed.count("select count(*) from orders where run <> 1") == 0)
        }
    }

    @Test("a repeat whose key the ledger calls another's takes another key, in recovery too; twice is refused")
    func repeatsOfOthers() async throws {
        try await TestBed.run(stock: [1: 10]) { bed in
            bed.product.state.withLock { $0.refusals["DEC-7001"] = (422, "KEY_REUSED") }
            _ = try await bed.pool.query(
                "insert into orders (id, product_id, quantity, status, created_at) values (7001, 1, 1, 'PENDING', now() - interval '1 hour')"
            )
            _ = try await bed.pool.query("insert into saga_work (order_id, due_at) values (7001, now()) on conflict do nothing")
            try await bed.wait("select count(*) from orders where id = 7001 and status = 'CONFIRMED'", for: 1)
            #expect(bed.product.stock(1) == 9)
            try await bed.wait("select count(*) from saga_work", for: 0)
            bed.product.script(.items(422, "KEY_REUSED"), .items(422, "KEY_REUSED"))
            let refused = try await bed.place(1)
            #expect(refused["status"] == "FAILED" && refused["failReason"] == "KEY_REUSED")
            #expect(bed.product.stock(1) == 9)
        }
    }

    @Test(
        "over the broker: an order whose key is another's takes another key and is settled over HTTP; what comes later for the old key gives nothing back"
    )
    func overTheBroker() async throws {
        let results = ScriptedResults()
        try await TestBed.run(
            stock: [1: 10],
            settings: ["ORDER_DEADLINE": "20s", "RECOVERY_AGE": "60s"],
            endpoints: MessageEndpoints(publisher: ScriptedPublisher(), events: ScriptedPublisher(), results: results)
        ) { bed in
            let id = try (try await bed.place(2, path: "/v2/orders")).orderID
            let result = { (outcome: String, reason: String) in
                #"{"version":1,"type":"stock.result","productId":1,"results":[{"orderId":\#(id),"key":"DEC-\#(id)","outcome":"\#(outcome)","reason":\#(reason),"remainingStock":null}]}"#
            }
            bed.product.state.withLock { $0.taken["DEC-\(id)"] = 2 }
            results.put(result("REFUSED", #""KEY_REUSED""#))
            try await bed.wait("select count(*) from orders where id = \(id) and status = 'CONFIRMED' and run > 1", for: 1)
            #expect(bed.product.stock(1) == 8)
            results.put(result("COMMITTED", "null"))
            try await results.waitUntilAcknowledged(2)
            #expect(results.acknowledged == 2)
            #expect(!bed.product.seen.contains { $0.hasPrefix("IN") })
            #expect(bed.product.stock(1) == 8)
        }
    }

    @Test("sequences behind their tables are raised at the start")
    func atStart() async throws {
        try await TestBed.run(stock: [1: 10]) { bed in
            await bed.servers[0].stop()
            _ = try await bed.pool.query(
                "insert into orders (id, product_id, quantity, status) select n, 1, 1, 'FAILED' from generate_series(100, 9000) n"
            )
            _ = try await bed.pool.query(
                "insert into outbox (id, lane, topic, order_ids, payload, status) values (8000, 0, 't', '{}', '', 'SENT')"
            )
            _ = try await bed.pool.query("select setval('order_ids', 1, false), setval('outbox_ids', 1, true)")
            let server = try await bed.start()
            #expect(try await bed.count("select last_value from order_ids") == 9001)
            #expect(try await bed.count("select last_value from outbox_ids") == 8001)
            let made = try await TestBed.send(server.peer, .POST, "/orders", #"{"productId":1,"quantity":1}"#)
            #expect(made.status == 200 && made.id == 9001)
            #expect(try await metric(bed, "stockgate_orders_id_taken_total", of: server) == 0)
            await server.stop()
        }
    }

    @Test("a sequence that falls behind under a running server is raised by the order that meets it, with a key and without")
    func whileItRuns() async throws {
        try await TestBed.run(stock: [1: 10]) { bed in
            let first = try (try await bed.place(1)).orderID
            _ = try await bed.pool.query(
                "insert into orders (id, product_id, quantity, status) select n, 1, 1, 'FAILED' from generate_series($1::bigint, $1::bigint + 5000) n",
                [.int(first + 1)]
            )
            for (place, key) in [nil, "k-1"].enumerated() {
                let made = try await bed.place(1, key: key)
                #expect(made.status == 200 && made["status"] == "CONFIRMED", "\(made)")
                #expect(try made.orderID > first + 5001)
                #expect(try await metric(bed, "stockgate_orders_id_taken_total", of: bed.servers[0]) == place + 1)
                let id = try made.orderID
                _ = try await bed.pool.query(
                    "insert into orders (id, product_id, quantity, status) select n, 1, 1, 'FAILED' from generate_series($1::bigint, $1::bigint + 5000) n",
                    [.int(id + 1)]
                )
            }
            let again = try await bed.place(1, key: "k-1")
            #expect(again.isReplayed, "a taken key is a repeat, not an id that came round again")
        }
    }
}
