import Eventually
import PostgresClient
import PrivateServers
import StockGate
import Synchronization
import Testing

/// Audits over kept sums: what they read is bounded, and what they say is the whole ledger.
@Suite("The ledger's kept sums", .serialized, .timeLimit(.minutes(10)))
struct LedgerTotalsTests {
    /// Writes so many sales of one unit into a product's ledger, with every tenth given back and one change by hand.
    private func write(_ rows: Int64, _ product: ProductID, _ pool: PostgresPool) async throws {
        _ = try await pool.query(
            """
            with lines as (
              insert into stock_ledger (product_id, request_id, direction, quantity, reason, order_id, fence, token, remaining)
              select $1, case when n % 10 = 0 then 'INC-' else 'DEC-' end || $1 || '-' || n, case when n % 10 = 0 then 'IN' else 'OUT' end, 1,
                case when n % 10 = 0 then 'ORDER_INCREMENT' else 'ORDER_DECREMENT' end, n, 0, 0, 0
              from generate_series(1::bigint, $2) n
              union all select $1, 'by-hand-' || $1, 'IN', 7, 'MANUAL', 0, 0, 0, 0
            )
            select 1
            """,
            [.int(product.rawValue), .int(rows)]
        )
        _ = try await pool.query(
            """
            update product_stock set stock = initial_stock + (
              select sum(case direction when 'IN' then quantity when 'OUT' then -quantity else 0 end) from stock_ledger l where l.product_id = $1
            ) where product_id = $1
            """,
            [.int(product.rawValue)]
        )
    }

    private func kept(_ product: ProductID, _ pool: PostgresPool) async throws -> (upTo: Int64, entries: Int64) {
        let row = try await pool.query(
            "select coalesce(max(up_to_id), 0), coalesce(max(entries), 0) from stock_ledger_totals where product_id = $1",
            [.int(product.rawValue)]
        ).one()
        return (try row.decode(0, as: Int64.self), try row.decode(1, as: Int64.self))
    }

    @Test func sumsAreKeptAndOnlyWhatCameBehindThemIsRead() async throws {
        let fixture = try await EngineFixture()
        let engine = try await fixture.startEngine {
            $0.ledger.auditRows = 10
            // The rows are written behind the engine's back; an audit of its own would find Redis different, and raise the fence.
            $0.auditInterval = .seconds(3600)
        }
        let (product, other) = (try await fixture.addProduct(1, stock: 1_000), try await fixture.addProduct(2, stock: 5))
        try await write(300, product, engine.ledger.pool)
        let totals = try #require(try await engine.ledger.totals(of: product))
        #expect((totals.sold, totals.returned, totals.restocked) == (270, 30, 7))
        #expect(totals.initialStock + totals.restocked + totals.returned - totals.sold == totals.stock)
        #expect(try await kept(product, engine.ledger.pool).entries >= 291)
        #expect(try await kept(other, engine.ledger.pool).entries == 0)
        // Sums that were kept are not read again: what was summed up may even be gone.
        let upTo = try await kept(product, engine.ledger.pool).upTo
        _ = try await engine.ledger.pool.query("delete from stock_ledger where product_id = 1 and id <= $1", [.int(upTo)])
        #expect(try await engine.ledger.totals(of: product) == totals)
        _ = await engine.decrease(DecreaseRequest(product: product, key: "DEC-new", orderID: 999, quantity: 2, isRepeat: false))
        #expect(try await engine.ledger.totals(of: product)?.sold == 272)
        #expect(try await engine.ledger.totals(of: ProductID(77)) == nil)
        await fixture.stop()
    }

    @Test func anAuditThatIsOutOfTimeGoesOnWhereItWas() async throws {
        let fixture = try await EngineFixture()
        let engine = try await fixture.startEngine {
            $0.ledger.auditRows = 10
            $0.ledger.auditTime = .zero
            $0.auditInterval = .seconds(3600)
        }
        let product = try await fixture.addProduct(1, stock: 1_000)
        try await write(95, product, engine.ledger.pool)
        // The first has no time for more than its look.
        await #expect(throws: PostgresError.self) { try await engine.ledger.totals(of: product) }
        for _ in 0..<9 { _ = try await engine.ledger.pool.query("select stock_ledger_advance(1, 10)") }
        #expect(try await engine.ledger.totals(of: product)?.sold == 86)
        await fixture.stop()
    }

    @Test func auditsBesideASaleAlwaysBalance() async throws {
        let fixture = try await EngineFixture()
        let engine = try await fixture.startEngine { $0.ledger.auditRows = 50 }
        let product = try await fixture.addProduct(1, stock: 2_000)
        // Few at a time, so that there are audits in the midst of them; the second half waits for two in any case.
        let audited = Mutex(0)
        async let rush: Int = {
            let first = await Rush.run(engine, product, orders: 1..<751, concurrency: 2).sold.count
            _ = try await eventually { audited.withLock { $0 } > 1 }
            return await first + Rush.run(engine, product, orders: 751..<1_501, concurrency: 2).sold.count
        }()
        var audits = 0
        while try await fixture.books(product).rows < 1_500 {
            let totals = try #require(try await engine.ledger.totals(of: product))
            #expect(totals.initialStock + totals.restocked + totals.returned - totals.sold == totals.stock)
            audits += 1
            audited.withLock { $0 = audits }
            if audits > 100_000 { break }
        }
        let sold = try await rush
        #expect(audits > 1)
        #expect(try await engine.ledger.totals(of: product)?.sold == Int64(sold))
        await fixture.stop()
    }

    /// Ids are drawn from one sequence for all products: another product's later id may be committed first.
    @Test func aRowThatIsCommittedLateIsNotLost() async throws {
        let fixture = try await EngineFixture()
        let engine = try await fixture.startEngine { $0.ledger.auditRows = 2 }
        let (late, early) = (
            try await fixture.addProduct(1, stock: 10, gated: false), try await fixture.addProduct(2, stock: 10, gated: false)
        )
        func commit(_ order: Int64, _ product: ProductID, _ send: (String, [PostgresValue]) throws -> PostgresResult) throws {
            let outcome = try send(
                "select outcome from stock_commit($1, $2, $3, $4, $5, $6, $7)",
                [.ints([product.rawValue]), .texts(["DEC-\(order)"]), .ints([1]), .ints([order]), .ints([0]), .ints([0]), .ints([0])]
            ).one().decode(0, as: Int64.self)
            #expect(outcome == 0)
        }
        let configuration = try PostgresConfiguration.patient(fixture.postgres.url)
        let (first, second) = (PostgresSession(configuration: configuration), PostgresSession(configuration: configuration))
        try first.transaction { transaction in
            try commit(1, late) { try transaction.query($0, $1) }
            // Rows with higher ids are committed, and taken into the sums, before the first one is.
            for order in 2...6 { try commit(Int64(order), early) { try second.query($0, $1) } }
            for product in [late, early] {
                _ = try second.query("select stock_ledger_advance($1, 100)", [.int(product.rawValue)])
            }
        }
        first.close()
        second.close()
        #expect(try await engine.ledger.totals(of: early)?.sold == 5)
        #expect(try await engine.ledger.totals(of: late)?.sold == 1)
        await fixture.stop()
    }
}
