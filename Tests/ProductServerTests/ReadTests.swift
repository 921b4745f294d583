import CircuitBreaker
import Dispatch
import Eventually
import HTTPTypes
import PostgresClient
import PrivateServers
import ServerKit
import StockContract
import StockGate
import StrictJSON
import Testing

@testable import ProductServer

/// Reads for callers: bounded, page by page, and over connections of their own.
@Suite("Reads", .serialized, .timeLimit(.minutes(10)))
struct ReadTests {
    /// Follows `next` to the end.
    /// - Returns: a member of all rows, and how many answers it took
    private func all(_ path: String, _ member: String, _ server: ProductServerFixture) async throws -> (rows: [JSONValue], answers: Int) {
        var (rows, answers): ([JSONValue], Int) = ([], 0)
        var after = ""
        while answers < 100 {
            let answer = try await server.ask(.get, path + after)
            try #require(answer.status == 200, "\(answer.body)")
            answers += 1
            guard case .array(let content)? = answer["content"] else {
                throw ProductServerFixture.Missing(what: "content in \(answer.body)")
            }
            rows += content.compactMap { $0[member] }
            guard case .int(let next)? = answer["next"] else { return (rows, answers) }
            after = "&after=\(next)"
        }
        throw ProductServerFixture.Missing(what: "an end of \(path)")
    }

    @Test func aLedgerIsReadByKeyInBoundedSteps() async throws {
        try await ProductServerFixture.with(["LIST_BOUND": "10"]) { server in
            let id = try await server.addProduct(stock: 100, strategy: "DB_ONLY")
            let other = try await server.addProduct(stock: 100, strategy: "DB_ONLY")
            // 24 rows that are shown; between them 12 closed keys in one stretch, longer than the bound, and another product's rows.
            _ = try await server.engine.ledger.pool.query(
                """
                insert into stock_ledger (product_id, request_id, direction, quantity, reason, order_id, fence, token, remaining)
                select p, 'DEC-' || p || '-' || n, case when n between 7 and 18 then 'CLOSED' else 'OUT' end, 1, 'ORDER_DECREMENT', n, 0, 0, 0
                from generate_series(1::bigint, 36) n, unnest($1) p order by n, p
                """,
                [.ints([id, other])]
            )
            let expected = (Array(19...36).reversed() + Array(1...6).reversed()).map { JSONValue.string("DEC-\(id)-\($0)") }
            let path = "/products/\(id)/stock/ledger?size=4"
            #expect(try await all(path, "requestId", server).rows == expected)

            let first = try await server.ask(.get, path)
            #expect(first["totalElements"] == 10 && first["isTotalExact"] == false && first["totalPages"] == 3)
            let third = try await server.ask(.get, path + "&page=2")
            guard case .array(let rows)? = third["content"] else { throw ProductServerFixture.Missing(what: "content in \(third.body)") }
            #expect(rows.compactMap { $0["orderId"] } == [28, 27])
            // The page is short because the walk ended, and says where to go on.
            guard case .int(let next)? = third["next"] else { throw ProductServerFixture.Missing(what: "next in \(third.body)") }
            let onwards = try await server.ask(.get, path + "&after=\(next)")
            guard case .array(let more)? = onwards["content"] else {
                throw ProductServerFixture.Missing(what: "content in \(onwards.body)")
            }
            #expect(more.first?["orderId"] == 26)

            let deep = try await server.ask(.get, path + "&page=3")
            #expect(deep.status == 400 && deep.error == "VALIDATION_ERROR")
            #expect(deep["details"]?["field"] == "page" && deep["details"]?["maximumRows"] == 10)
            let both = try await server.ask(.get, path + "&page=0&after=5")
            #expect(both.status == 400 && both["details"]?["field"] == "page")
            #expect(try await server.ask(.get, "/products/999/stock/ledger").error == "PRODUCT_NOT_FOUND")
        }
    }

    @Test func productsAreReadByKeyWithTheirFilters() async throws {
        try await ProductServerFixture.with(["LIST_BOUND": "10"]) { server in
            var ids: [Int64] = []
            for _ in 0..<23 { ids.append(try await server.addProduct(stock: 1, strategy: "DB_ONLY")) }
            _ = try await server.engine.ledger.pool.query(
                "update products set name = 'Mouse' where id <> all($1)",
                [.ints([ids[1], ids[21]])]
            )
            #expect(try await all("/products?size=3", "id", server).rows == ids.map { .int($0) })
            // Two of 23, at both ends: each answer walks ten.
            let found = try await all("/products?query=keyb", "id", server)
            #expect(found.rows == [.int(ids[1]), .int(ids[21])] && found.answers == 3)
            #expect(try await server.ask(.delete, "/products/\(ids[20])").status == 204)
            #expect(try await all("/products?status=DISCONTINUED", "id", server).rows == [.int(ids[20])])
            let page = try await server.ask(.get, "/products?status=DISCONTINUED")
            #expect(page["totalElements"] == 1 && page["isTotalExact"] == true && page["next"] == .null)
            // A page behind the end of a list that is known to its end.
            let behind = try await server.ask(.get, "/products?status=DISCONTINUED&page=1000000000")
            #expect(behind.status == 200 && behind["content"] == .array([]) && behind["totalElements"] == 1)
        }
    }

    /// Lists, single products and an audit hang for as long as they may; whoever sells, recovers or asks for readiness does not notice.
    @Test func readersTakeNoConnectionOfWhatSells() async throws {
        try await ProductServerFixture.with(["LEDGER_POOL": "2", "READ_TIMEOUT": "6s", "LOCK_TIMEOUT": "60s", "STATEMENT_TIMEOUT": "60s"]) {
            server in
            let id = try await server.addProduct(stock: 100)
            let session = PostgresSession(configuration: try PostgresConfiguration.patient(server.postgres.url))
            defer { session.close() }
            let blocked = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
            let engine = server.engine
            let store = CatalogStore(ledger: engine.ledger, listBound: 1_000)
            try await Self.locking("products, stock_ledger_totals", server) {
                // Whether the readers hung for as long as the others were asked. On a busy machine their time may be over before; then it is tried again.
                var isProven = false
                for attempt in 1...5 where !isProven {
                    let readers = Task {
                        await withTaskGroup(of: Bool.self) { group in
                            for _ in 0..<6 {
                                group.addTask { (try? await store.list(query: nil, status: nil, Listing())) == nil }
                                group.addTask { (try? await store.find(.id(id))) == nil }
                            }
                            for _ in 0..<2 { group.addTask { (try? await engine.audit(ProductID(id))) == nil } }
                            return await group.reduce(into: []) { $0.append($1) }
                        }
                    }
                    try await eventually("four readers hang") { try session.query(blocked).one().decode(0, as: Int64.self) >= 4 }
                    // The readers hang. These need the product's row and Redis alone.
                    let loaded = try await server.ask(.post, "/admin/products/\(id)/load-stock-redis", admin: true)
                    #expect(loaded.status == 200, "\(loaded.body)")
                    #expect(try await server.ask(.get, "/readyz").status == 200)
                    let sold = try await server.ask(
                        .patch,
                        "/products/\(id)/stock/decrease-by-order",
                        #"{"orderId":\#(attempt),"quantity":1}"#,
                        key: "DEC-\(attempt)"
                    )
                    #expect(sold.status == 200, "\(sold.body)")
                    // A recovery of Redis needs no more either.
                    engine.breakers[0].transition(to: .forceOpen)
                    engine.breakers[0].transition(to: .close)
                    let closed = ContinuousClock.now + .seconds(30)
                    while engine.breakers[0].state != .closed || engine.directProductCount > 0, ContinuousClock.now < closed {
                        try await Task.sleep(for: .milliseconds(5))
                    }
                    #expect(engine.breakers[0].state == .closed && engine.directProductCount == 0)
                    isProven = try session.query(blocked).one().decode(0, as: Int64.self) >= 4
                    #expect(await readers.value == Array(repeating: true, count: 14))
                }
                #expect(isProven, "the readers were refused too early to prove anything")
                for path in ["/products", "/products/\(id)"] {
                    let answer = try await server.ask(.get, path)
                    #expect(answer.status == 503 && answer.headers[.retryAfter] != nil, "\(answer.body)")
                }
            }
            #expect(try await server.ask(.get, "/products/\(id)").status == 200)
        }
    }

    /// The ledger's rows cannot be read by anybody: what does not need them does not notice.
    @Test func loadingStockReadsNoRowOfTheLedger() async throws {
        try await ProductServerFixture.with(["READ_TIMEOUT": "500ms", "LOCK_TIMEOUT": "60s"]) { server in
            let id = try await server.addProduct(stock: 100)
            try await Self.locking("stock_ledger", server) {
                let loaded = try await server.ask(.post, "/admin/products/\(id)/load-stock-redis", admin: true)
                #expect(loaded.status == 200 && loaded["stock"] == 100, "\(loaded.body)")
                let audit = try await server.ask(.get, "/admin/audit/products/\(id)", admin: true)
                #expect(audit.status == 503 && audit.headers[.retryAfter] != nil, "\(audit.body)")
            }
            // Half a second may be too short for a busy machine: it is asked again then.
            try await eventually("an audit without drift") {
                try await server.ask(.get, "/admin/audit/products/\(id)", admin: true)["drift"] == 0
            }
        }
    }

    /// Runs `body` while these tables are locked against everything.
    private static func locking(_ tables: String, _ server: ProductServerFixture, _ body: () async throws -> Void) async throws {
        var configuration = try PostgresConfiguration.patient(server.postgres.url)
        configuration.idleInTransactionTimeout = .zero
        let pool = PostgresPool(configuration: configuration, maximumConnections: 1)
        let (locked, isLocked) = AsyncStream.makeStream(of: Void.self)
        let end = DispatchSemaphore(value: 0)
        let holder = Task {
            try await pool.transaction(timeout: .seconds(600)) { transaction in
                try transaction.execute(script: "lock table \(tables) in access exclusive mode")
                isLocked.yield()
                end.wait()
            }
        }
        for await _ in locked { break }
        do {
            try await body()
        } catch {
            end.signal()
            _ = try? await holder.value
            await pool.shutdown()
            throw error
        }
        end.signal()
        try await holder.value
        await pool.shutdown()
    }
}
