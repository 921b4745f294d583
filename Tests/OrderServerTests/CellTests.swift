import MessageBroker
import NIOHTTP1
import PostgresClient
import ServerKit
import StockContract
import StrictJSON
import Synchronization
import Testing

@testable import OrderServer

/// Order servers in front of two cells of product servers.
@Suite("Cells") struct CellTests {
    /// Two cells, each with a stand-in: products up to 999999, and those from 1000000 on. 500000 to 599999 belong to none.
    private func run(
        settings: [String: String] = [:],
        inBatches: Bool = true,
        endpoints: MessageEndpoints? = nil,
        _ body: (TestBed, _ first: ProductStandIn, _ second: ProductStandIn) async throws -> Void
    ) async throws {
        let first = try await ProductStandIn.start(stock: [1: 100, 2: 100])
        let second = try await ProductStandIn.start(stock: [1_000_001: 100])
        let urls = "1-499999,600000-999999=\(first.url);1000000-=\(second.url)"
        var all = [
            "PRODUCT_SERVER_URL": urls,
            "PRODUCT_INTERNAL_URL": inBatches ? "1000000-=\(second.url); 1-499999,600000-999999=\(first.url)" : "",
        ]
        all.merge(settings) { $1 }
        try await TestBed.run(settings: all, endpoints: endpoints) { try await body($0, first, second) }
        await first.stop()
        await second.stop()
    }

    private func settings(_ environment: [String: String]) throws -> OrderServerConfiguration {
        var reader = SettingsReader(environment: environment)
        return try OrderServerConfiguration(from: &reader)
    }

    @Test("the setting names cells, or one cell without ids as before")
    func read() throws {
        let plain = try settings(["PRODUCT_SERVER_URL": "http://a:1, http://b:2/x"])
        #expect(plain.cells.map(\.ids) == [nil] && plain.cellMap == nil)
        #expect(plain.cells[0].servers.map(\.authority) == ["a:1", "b:2"])
        #expect(try settings([:]).cells[0].servers.map(\.authority) == ["127.0.0.1:8081"])
        let several = try settings([
            "PRODUCT_SERVER_URL": "1-999999=http://a,http://b;5,1000000-=https://c?sslmode=verify-full",
            "PRODUCT_INTERNAL_URL": "5,1000000-=https://c:91?sslmode=verify-full;1-999999=http://a:91,http://b:91",
        ])
        #expect(several.cells.map { $0.ids?.name } == ["1-999999", "1000000-"])
        #expect(several.cells.map { $0.internalServers.map(\.authority) } == [["a:91", "b:91"], ["c:91"]])
        #expect([4, 5, 6, 1_000_000].map { several.cellMap?.cell(of: $0) } == [0, 1, 0, 1])
    }

    @Test("a refusal names its variable, and repeats nothing of the value")
    func refused() {
        let url = "PRODUCT_SERVER_URL"
        let admin = "PRODUCT_INTERNAL_URL"
        let many = (0...64).map { "\($0 + 1)=http://a" }.joined(separator: ";")
        let long = "http://" + Array(repeating: "a", count: 65).joined(separator: ",http://")
        let cases: [(given: [String: String], name: String)] = [
            ([url: "1-9=http://a;9-=http://b"], url), ([url: "1-9=http://a;9"], url), ([url: "1-9=http://a;"], url),
            ([url: "1-9="], url), ([url: "1-9=http://a,"], url), ([url: "1-9=http://u:hidden@a"], url), ([url: "hidden"], url),
            ([url: "9-1=http://a"], url), ([url: "1-9,!5=http://a"], url), ([url: "1-9=http://a;1-9=http://a"], url),
            ([url: many], url),
            ([url: long], url),
            ([url: "1-9=http://a;10-=http://b", admin: "http://hidden"], admin),
            ([url: "1-9=http://a;10-=http://b", admin: "1-9=http://a:1;11-=http://b:1"], admin),
            ([url: "1-9=http://a;10-=http://b", admin: "1-9=http://a:1"], admin), ([admin: "1-9=http://a:1"], admin),
        ]
        for (given, name) in cases {
            let error = #expect(throws: SettingsError.self) { try settings(given) }
            #expect(
                error?.faults.count == 1 && error?.faults.first?.hasPrefix("\(name): ") == true,
                "\(given): \(String(describing: error))"
            )
            #expect(error?.description.contains("hidden") == false)
        }
    }

    @Test("each product's orders, cancellations and looks go to its cell, and calls are cut by cell", arguments: [true, false])
    func routed(inBatches: Bool) async throws {
        try await run(inBatches: inBatches) { bed, first, second in
            let answers = try await withThrowingTaskGroup(of: TestBed.Answer.self) { group in
                for number in 0..<40 { group.addTask { try await bed.place(1, product: number % 2 == 0 ? 1 : 1_000_001) } }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            #expect(answers.allSatisfy { $0["status"] == "CONFIRMED" })
            #expect(first.stock(1) == 80 && second.stock(1_000_001) == 80)
            #expect(first.seen.count == 20 && second.seen.count == 20, "no call went to the other cell")
            let id = try #require(answers.first { $0["productId"] == 1_000_001 }).orderID
            #expect(try await bed.send(.POST, "/orders/\(id)/cancel")["status"] == "CANCELLED")
            #expect(second.stock(1_000_001) == 81 && first.seen.count == 20)
            // A code is looked for in every cell; a product that another cell has by its id is not believed.
            let body = #"{"productId":"CATALOG-002","qty":1,"unitPrice":900}"#
            #expect(try await bed.send(.POST, "/u-1/orders", body)["status"] == "CONFIRMED")
            #expect(first.stock(1) == 79)
            let health = try await bed.waitUntilReady("/readyz?verbose")["dependencies"]
            for name in ["productServer@1-499999", "productServer@1000000-"] { #expect(health[name]?["state"] == "UP", "\(health)") }
            try await bed.wait(metric: #"stockgate_orders_cell_waiting{cell="1000000-"} 0"#)
            try await bed.wait(metric: #"stockgate_circuit_breaker_state{name="productServer@1-499999",state="closed"} 1"#)
        }
    }

    @Test("a product of no cell is answered as an unknown one, and no order of it is left open")
    func noCell() async throws {
        let publisher = ScriptedPublisher()
        let endpoints = MessageEndpoints(publisher: publisher, events: ScriptedPublisher(), results: ScriptedResults())
        try await run(endpoints: endpoints) { bed, first, second in
            let unknown = try await bed.place(1, product: 7)
            let outside = try await bed.place(1, product: 500_000, key: "k-1")
            for answer in [unknown, outside] {
                #expect(answer.status == 200 && answer["status"] == "FAILED" && answer["failReason"] == "PRODUCT_NOT_FOUND", "\(answer)")
            }
            let again = try await bed.place(1, product: 500_000, key: "k-1")
            #expect(again.isReplayed && again.id == outside.id)
            let asynchronous = try await bed.place(1, product: 500_000, path: "/v2/orders")
            #expect(asynchronous.status == 200 && asynchronous["failReason"] == "PRODUCT_NOT_FOUND")
            let named = try await bed.send(.POST, "/u-1/orders", #"{"productId":"500000","qty":1,"unitPrice":900}"#)
            #expect(named.status == 404 && named["error"] == "PRODUCT_NOT_FOUND")
            #expect(try await bed.count("select count(*) from orders where status = 'PENDING'") == 0)
            #expect(first.seen.count == 1 && second.seen.isEmpty && publisher.sent.isEmpty)
        }
    }

    @Test("a command goes to the queue of its product's cell; one whose cell is gone comes back, is given up, and nothing is failed for it")
    func commands() async throws {
        let publisher = ScriptedPublisher()
        publisher.set { $0.outcomes = { $0.routingKey == "stock.decrease@" ? .returned(code: 312, text: "NO_ROUTE") : .confirmed } }
        let endpoints = MessageEndpoints(publisher: publisher, events: ScriptedPublisher(), results: ScriptedResults())
        try await run(settings: ["OUTBOX_BACKOFF": "1ms", "OUTBOX_BACKOFF_MAX": "5ms", "OUTBOX_ATTEMPTS": "3"], endpoints: endpoints) {
            bed,
            _,
            _ in
            for product in [1, 1_000_001] { #expect(try await bed.place(1, product: product, path: "/v2/orders").status == 202) }
            try await bed.wait("select count(*) from outbox where status = 'SENT' and product_id is not null", for: 2)
            #expect(Set(publisher.sent.map(\.routingKey)) == ["stock.decrease@1-499999", "stock.decrease@1000000-"])
            // As if the setting had changed since.
            _ = try await bed.pool.query("insert into orders (id, product_id, quantity, status) values (9001, 500000, 1, 'PENDING')")
            _ = try await bed.pool.query(
                "insert into outbox (id, lane, topic, product_id, order_ids, payload) values (9001, 0, 'stock.decrease', 500000, '{9001}', '{}')"
            )
            try await bed.wait("select count(*) from outbox where id = 9001 and status = 'DEAD'", for: 1)
            try await bed.wait("select count(*) from saga_work where order_id = 9001", for: 1)
            #expect(try await bed.count("select count(*) from orders where id = 9001 and status = 'PENDING'") == 1)
        }
    }

    @Test("an order that may have units is not failed because the setting names no cell for it any more")
    func noCellAnyMore() async throws {
        try await run { bed, first, second in
            _ = try await bed.pool.query(
                "insert into orders (id, product_id, quantity, status) values (9001, 500000, 1, 'PENDING'), (9002, 1000001, 1, 'PENDING')"
            )
            _ = try await bed.pool.query("insert into saga_work (order_id, due_at) values (9001, now()), (9002, now())")
            try await bed.wait("select count(*) from orders where id = 9002 and status = 'CONFIRMED'", for: 1)
            try await bed.wait("select count(*) from saga_work where order_id = 9001 and attempts >= 2", for: 1)
            #expect(try await bed.count("select count(*) from orders where id = 9001 and status = 'PENDING'") == 1)
            #expect(first.seen.isEmpty && second.seen == ["OUT DEC-9002 2"])
        }
    }

    @Test("a cell that hangs opens its own breaker; the other sells as before, and recovery settles its orders beside those that wait")
    func hangs() async throws {
        let bounds = [
            "PRODUCT_TIMEOUT": "300ms", "ORDER_DEADLINE": "2s", "PRODUCT_BREAKER_WAIT": "60s", "RECOVERY_BATCH": "4", "RECOVERY_AGE": "3s",
        ]
        try await run(settings: bounds) { bed, first, second in
            second.state.withLock { $0.isHeld = true }
            // More of the silent cell's orders than recovery takes at a time, all due before one of the other.
            _ = try await bed.pool.query(
                "insert into orders (id, product_id, quantity, status) select 9000 + n, 1000001, 1, 'PENDING' from generate_series(1, 40) n"
            )
            _ = try await bed.pool.query("insert into saga_work (order_id, due_at) select id, now() - interval '1 minute' from orders")
            _ = try await bed.pool.query("insert into orders (id, product_id, quantity, status) values (9100, 2, 1, 'PENDING')")
            _ = try await bed.pool.query("insert into saga_work (order_id, due_at) values (9100, now())")
            async let harmed = withThrowingTaskGroup(of: Int.self) { group in
                for _ in 0..<30 { group.addTask { try await bed.place(1, product: 1_000_001).status } }
                return try await group.reduce(into: Set<Int>()) { $0.insert($1) }
            }
            for _ in 0..<30 { #expect(try await bed.place(1)["status"] == "CONFIRMED") }
            let statuses = try await harmed
            #expect(statuses == [424])
            try await bed.wait("select count(*) from orders where id = 9100 and status = 'CONFIRMED'", for: 1)
            try await bed.wait(metric: #"stockgate_circuit_breaker_state{name="productServer@1000000-",state="open"} 1"#)
            try await bed.wait(metric: #"stockgate_circuit_breaker_state{name="productServer@1-499999",state="closed"} 1"#)
            #expect(try await bed.count("select count(*) from orders where product_id = 1000001 and status <> 'PENDING'") == 0)
            let ready = try await bed.waitUntilReady("/readyz?verbose")["dependencies"]
            #expect(ready["productServer@1000000-"]?["state"] == "DEGRADED" && ready["productServer@1-499999"]?["state"] == "UP")
            let before = try await bed.count("select count(*) from orders")
            let refused = try await bed.place(1, product: 1_000_001)
            #expect(refused.status == 424 && refused["details"]["cause"] == "BREAKER_OPEN")
            #expect(try await bed.count("select count(*) from orders") == before, "no order is made for a cell whose breaker is open")
            #expect(try await bed.place(1)["status"] == "CONFIRMED")
            // A code that the other cell has is found without the silent one.
            let body = #"{"productId":"CATALOG-002","qty":1,"unitPrice":900}"#
            #expect(try await bed.send(.POST, "/u-1/orders", body)["status"] == "CONFIRMED")
            #expect(first.stock(2) == 99)
            second.state.withLock { $0.isHeld = false }
            let closed = try await bed.send(
                .POST,
                "/admin/circuitbreakers/productServer@1000000-",
                #"{"updateState":"CLOSE"}"#,
                admin: true
            )
            #expect(closed.status == 200, "\(closed)")
            try await bed.wait("select count(*) from orders where status = 'PENDING'", for: 0)
            #expect(
                try await bed.count("select count(*) from orders where product_id = 1000001 and status = 'CONFIRMED'") == 100
                    - second.stock(1_000_001)
            )
        }
    }
}
