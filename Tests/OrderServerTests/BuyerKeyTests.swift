import NIOHTTP1
import PostgresClient
import PrivateServers
import ServerKit
import StrictJSON
import Testing

@testable import OrderServer

@Suite("A key belongs to its buyer", .serialized, .timeLimit(.minutes(10)))
struct BuyerKeyTests {
    @Test("one key, three scopes, two servers, all at once: an order for each buyer and one for those without; each repeat gets its own")
    func scopes() async throws {
        try await TestBed.run(servers: 2, stock: [1: 1_000]) { bed in
            let buyers: [String?] = ["u-001", "u-002", nil]
            for round in 0..<5 {
                let answers = try await withThrowingTaskGroup(of: (Int, TestBed.Answer).self) { group in
                    for index in 0..<24 {
                        group.addTask {
                            (index % 3, try await bed.place(1, buyer: buyers[index % 3], key: "round \(round)", server: index % 2))
                        }
                    }
                    return try await group.reduce(into: [(Int, TestBed.Answer)]()) { $0.append($1) }
                }
                var ids: [Int64] = []
                for scope in 0..<3 {
                    let own = answers.filter { $0.0 == scope }.map(\.1)
                    #expect(own.allSatisfy { $0["status"] == "CONFIRMED" }, "\(own)")
                    #expect(own.allSatisfy { $0["buyerId"] == buyers[scope].map { .string($0) } ?? .null })
                    #expect(Set(own.map { $0.id }).count == 1)
                    #expect(own.filter { !$0.isReplayed }.count == 1)
                    ids.append(try own[0].orderID)
                }
                #expect(Set(ids).count == 3)
            }
            #expect(bed.product.stock(1) == 1_000 - 15)
            #expect(try await bed.count("select count(*) from orders") == 15)
        }
    }

    @Test("422 says nothing of the other order: not to its own buyer with another payload, and nobody else gets it")
    func reused() async throws {
        try await TestBed.run { bed in
            let made = try await bed.place(3, buyer: nil, key: "k")
            let id = try made.orderID
            for headers in [HTTPHeaders(), ["prefer": "handling=strict"]] {
                let other = try await bed.place(4, buyer: nil, key: "k", headers: headers)
                #expect(other.status == 422)
                #expect(other["error"] == "KEY_REUSED")
                #expect(other["details"] == .null)
                guard case .string(let message) = other["message"] else { throw TestBed.Failure(description: "no message") }
                #expect(!message.contains("\(id)"))
                #expect(!other.isReplayed)
            }
            // A stranger's order, not the buyer's.
            let stranger = try await bed.place(4, buyer: "u-002", key: "k")
            #expect(stranger["status"] == "CONFIRMED")
            #expect(stranger.id != id)
            #expect(!stranger.isReplayed)
        }
    }

    @Test("the routes under a user share the scope of the same buyerId")
    func userRoutes() async throws {
        try await TestBed.run { bed in
            let body = #"{"productId":"1","qty":2,"unitPrice":900}"#
            func order(_ user: String) async throws -> TestBed.Answer {
                try await bed.send(.POST, "/\(user)/orders", body, headers: ["idempotency-key": "k"])
            }
            let mine = try await order("u-1")
            let theirs = try await order("u-2")
            #expect(mine.status == 201 && theirs.status == 201)
            #expect(mine["orderId"] != theirs["orderId"])
            #expect(try await order("u-1")["orderId"] == mine["orderId"])
            // The same buyer, without a price: another payload.
            #expect(try await bed.place(2, buyer: "u-1", key: "k").status == 422)
            #expect(try await bed.count("select count(*) from orders") == 2)
        }
    }

    @Test("buyers whose ids differ in their Unicode form alone are two, in one group of look-ups as well")
    func unicode() async throws {
        try await TestBed.run { bed in
            // é as one scalar, and as e with an accent: one text to Swift, two ids to the database.
            let composed = "caf\u{E9}"
            let decomposed = "cafe\u{301}"
            #expect(composed == decomposed)
            let first = try await bed.place(1, buyer: composed, key: "k").orderID
            let second = try await bed.place(1, buyer: decomposed, key: "k").orderID
            #expect(first != second)
            let lookup = try KeyLookup(
                configuration: PostgresConfiguration(url: bed.databaseURL),
                maximumQueued: 1_000,
                maximumBatch: 500
            )
            let found = await withTaskGroup(of: (Bool, Int64?).self) { group in
                for index in 0..<300 {
                    let isFirst = index.isMultiple(of: 2)
                    group.addTask {
                        let order = try? await lookup.order(key: "k", buyer: isFirst ? composed : decomposed).get()
                        return (isFirst, order?.id)
                    }
                }
                return await group.reduce(into: [(Bool, Int64?)]()) { $0.append($1) }
            }
            #expect(found.allSatisfy { $0.1 == ($0.0 ? first : second) })
            #expect(try await lookup.order(key: "k", buyer: nil).get() == nil)
            #expect(try await lookup.order(key: "none", buyer: composed).get() == nil)
            await lookup.shutdown()
        }
    }

    @Test("the database itself keeps a key once for each buyer, and once for all without")
    func unique() async throws {
        try await TestBed.run { bed in
            func insert(_ id: Int64, _ buyer: String?, _ key: String?) async throws -> Bool {
                do {
                    _ = try await bed.pool.query(
                        "insert into orders (id, product_id, quantity, status, buyer_id, idempotency_key) values ($1, 1, 1, 'FAILED', $2, $3)",
                        [.int(id), .optionalText(buyer), .optionalText(key)]
                    )
                    return true
                } catch  where error.code == .server(sqlState: "23505") {
                    return false
                }
            }
            #expect(try await insert(1, "a", "k"))
            #expect(try await insert(2, "b", "k"))
            #expect(try await insert(3, nil, "k"))
            #expect(try await !insert(4, "a", "k"))
            #expect(try await !insert(5, nil, "k"))
            #expect(try await insert(6, "a", nil))
            #expect(try await insert(7, "a", nil))
            // Found through the index, however many buyers use the key.
            let plan = try await bed.pool.transaction { transaction in
                try transaction.execute(
                    script: "set local enable_seqscan = off; set local enable_hashjoin = off; set local enable_mergejoin = off"
                )
                return try transaction.query(
                    """
                    explain select 1 from unnest(array['k'], array['a']) with ordinality as t(k, b, n)
                    join orders o on o.idempotency_key = t.k and coalesce(o.buyer_id, '') collate "C" = t.b
                    """
                ).map { row in try row.decode(0, as: String.self) }.joined(separator: "\n")
            }
            #expect(plan.contains("using orders_buyer_key"), "\(plan)")
            #expect(plan.contains("Index Cond: ((idempotency_key = ") && plan.contains(" AND ((COALESCE(buyer_id, "), "\(plan)")
        }
    }

    @Test("orders made before keys had buyers keep theirs")
    func migration() async throws {
        try await TestBed.run(servers: 0) { bed in
            let before = OrderStore.migrations.filter { $0.version < 4 }
            _ = try await Migrator(configuration: PostgresConfiguration.patient(bed.databaseURL)).apply(before)
            for (id, buyer) in [(1 as Int64, "u-001" as String?), (2, nil)] {
                _ = try await bed.pool.query(
                    """
                    insert into orders (id, product_id, quantity, status, buyer_id, idempotency_key)
                    values ($1, 1, 3, 'CONFIRMED', $2, $3)
                    """,
                    [.int(id), .optionalText(buyer), .text(buyer ?? "without")]
                )
            }
            let server = try await bed.start()
            func place(_ quantity: Int, _ buyer: String?, _ key: String) async throws -> TestBed.Answer {
                let named = buyer.map { #","buyerId":"\#($0)""# } ?? ""
                return try await TestBed.send(
                    server.peer,
                    .POST,
                    "/orders",
                    #"{"productId":1,"quantity":\#(quantity)\#(named)}"#,
                    headers: ["idempotency-key": key]
                )
            }
            let own = try await place(3, "u-001", "u-001")
            #expect(own.id == 1)
            #expect(own.isReplayed)
            #expect(try await place(4, "u-001", "u-001").status == 422)
            #expect(try await place(3, nil, "without").id == 2)
            #expect(try await place(3, "u-002", "u-001")["status"] == "CONFIRMED")
            #expect(try await place(3, "u-001", "without")["status"] == "CONFIRMED")
            #expect(try await bed.count("select count(*) from orders") == 4)
            await server.stop()
        }
    }
}

/// The same over the broker.
extension OutboxTests {
    @Test("one key of two buyers makes two orders, each in a message, and each repeat gets its own")
    func buyersOfOneKey() async throws {
        try await run { bed, publisher, _ in
            let buyers: [String?] = ["u-001", "u-002", nil]
            let answers = try await withThrowingTaskGroup(of: (Int, TestBed.Answer).self) { group in
                for index in 0..<60 {
                    group.addTask { (index % 3, try await bed.place(1, buyer: buyers[index % 3], key: "k", path: "/v2/orders")) }
                }
                return try await group.reduce(into: [(Int, TestBed.Answer)]()) { $0.append($1) }
            }
            var ids: Set<Int64> = []
            for scope in 0..<3 {
                let own = answers.filter { $0.0 == scope }.map(\.1)
                #expect(own.allSatisfy { $0.status == 202 })
                #expect(Set(own.map { $0.id }).count == 1)
                ids.insert(try own[0].orderID)
            }
            #expect(ids.count == 3)
            try await bed.wait("select count(*) from outbox where status <> 'SENT'", for: 0)
            #expect(try await bed.count("select sum(cardinality(order_ids))::bigint from outbox where product_id is not null") == 3)
            #expect(try await bed.place(2, buyer: "u-001", key: "k", path: "/v2/orders").status == 422)
            _ = publisher
        }
    }
}
