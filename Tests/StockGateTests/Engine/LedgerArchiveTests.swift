import PostgresClient
import StockGate
import Synchronization
import Testing

/// Rows that have left the ledger: their keys are answered as before, and their sums stay.
@Suite("The ledger's archive", .serialized, .timeLimit(.minutes(5)))
struct LedgerArchiveTests {
    private func decrease(_ order: Int64, _ quantity: Int64 = 1, of product: ProductID = ProductID(1), isRepeat: Bool = true)
        -> DecreaseRequest
    {
        DecreaseRequest(product: product, key: "DEC-\(order)", orderID: order, quantity: Quantity(quantity), isRepeat: isRepeat)
    }

    /// Takes everything into the sums, makes it old, and archives it.
    private func archive(_ engine: StockEngine, age: String = "40 days") async throws -> Int64 {
        let pool = engine.ledger.pool
        _ = try await pool.query("select stock_ledger_advance(1, 100000)")
        _ = try await pool.query("update stock_ledger set created_at = now() - $1::text::interval where product_id = 1", [.text(age)])
        return try await pool.query("select stock_archive(1, now(), 100000)").one().decode(0, as: Int64.self)
    }

    /// Sold, returned, restocked, stock. The fence may be raised at any time by a resync.
    private func sums(_ engine: StockEngine) async throws -> [Int64] {
        let totals = try #require(try await engine.ledger.totals(of: ProductID(1)))
        return [totals.sold, totals.returned, totals.restocked, totals.stock]
    }

    private func count(_ table: String, _ engine: StockEngine) async throws -> Int64 {
        try await engine.ledger.pool.query("select count(*) from \(table)").one().decode(0, as: Int64.self)
    }

    @Test func archivedKeysAreAnsweredAsBeforeAndSumsStay() async throws {
        let fixture = try await EngineFixture()
        let engine = try await fixture.startEngine()
        let (product, other) = (try await fixture.addProduct(1, stock: 100), try await fixture.addProduct(2, stock: 100))
        for order in Int64(1)...20 { _ = await engine.decrease(decrease(order, 2, isRepeat: false)) }
        #expect(
            await engine.increase(IncreaseRequest(product: product, key: "INC-1", orderID: 1, quantity: 2))
                == .added(quantity: 2, remaining: 62, replayed: false)
        )
        guard case .insufficient = await engine.decrease(decrease(77, 1_000)) else { throw Unexpected(what: "stock for 1,000") }
        _ = try await engine.adjust(product, key: "by-hand", by: 8, maximum: 1_000)
        let before = try await sums(engine)
        #expect(try await archive(engine) == 23)
        #expect(try await count("stock_ledger", engine) == 0)
        #expect(try await sums(engine) == before)

        // A replay, with the first result; a key of another payload and of another product; a final no; a cancellation of a sale that is long ago, and of a cancelled one.
        #expect(await engine.decrease(decrease(5, 2)) == .sold(remaining: 90, replayed: true))
        #expect(await engine.decrease(decrease(6, 3)) == .keyReused)
        #expect(await engine.decrease(decrease(7, 2, of: other)) == .keyReused)
        #expect(await engine.decrease(decrease(77, 1_000)) == .keyClosed)
        #expect(
            await engine.increase(IncreaseRequest(product: product, key: "INC-8", orderID: 8, quantity: 2))
                == .added(quantity: 2, remaining: 72, replayed: false)
        )
        #expect(
            await engine.increase(IncreaseRequest(product: product, key: "INC-1", orderID: 1, quantity: 2))
                == .added(quantity: 2, remaining: 62, replayed: true)
        )
        #expect(try await engine.adjust(product, key: "by-hand", by: 8, maximum: 1_000).outcome == .duplicate)
        #expect(try await engine.adjust(product, key: "by-hand", by: 9, maximum: 1_000).outcome == .keyReused)
        // What only asks brings nothing back.
        let archived = try await count("stock_archived_keys", engine)
        #expect(try await engine.ledger.entry(forKey: "DEC-20", reader: true)?.remaining == 60)
        #expect(try await count("stock_archived_keys", engine) == archived)

        #expect(try await sums(engine) == [40, 4, 8, 72])
        // What came back is archived again, once.
        _ = try await archive(engine)
        #expect(try await count("stock_ledger", engine) == 0)
        #expect(try await count("stock_ledger_archive", engine) == 24)
        #expect(try await count("stock_archived_keys", engine) == 24)
        #expect(try await sums(engine) == [40, 4, 8, 72])
        // A month of whole rows goes, and the keys stay.
        let partitions = try await engine.ledger.pool.query(
            "select inhrelid::regclass::text from pg_inherits where inhparent = 'stock_ledger_archive'::regclass"
        )
        for partition in partitions { _ = try await engine.ledger.pool.query("drop table \(try partition.decode(0, as: String.self))") }
        #expect(await engine.decrease(decrease(9, 2)) == .sold(remaining: 82, replayed: true))
        #expect(try await sums(engine) == [40, 4, 8, 72])
        await fixture.stop()
    }

    @Test func whatIsYoungOrNotInTheSumsIsNotArchived() async throws {
        let fixture = try await EngineFixture()
        let engine = try await fixture.startEngine()
        _ = try await fixture.addProduct(1, stock: 100)
        for order in Int64(1)...4 { _ = await engine.decrease(decrease(order, isRepeat: false)) }
        _ = try await engine.ledger.pool.query("update stock_ledger set created_at = now() - interval '2 days'")
        #expect(
            try await engine.ledger.pool.query("select stock_archive(1, now(), 100)").one().decode(0, as: Int64.self) == 0,
            "not in the sums"
        )
        _ = try await engine.ledger.pool.query("select stock_ledger_advance(1, 3)")
        #expect(try await engine.ledger.pool.query("select stock_archive(1, now(), 2)").one().decode(0, as: Int64.self) == 2)
        #expect(try await engine.ledger.pool.query("select stock_archive(1, now(), 100)").one().decode(0, as: Int64.self) == 1)
        #expect(try await archive(engine, age: "23 hours") == 0)
        #expect(try await count("stock_ledger", engine) == 1)
        await fixture.stop()
    }

    /// Writes so many sales of one unit, each a second younger than the one before, and takes them into the sums.
    private func write(_ orders: ClosedRange<Int64>, from age: String, _ engine: StockEngine) async throws {
        _ = try await engine.ledger.pool.query(
            """
            insert into stock_ledger (product_id, request_id, direction, quantity, reason, order_id, fence, token, remaining, created_at)
            select 1, 'DEC-' || n, 'OUT', 1, 'ORDER_DECREMENT', n, 1, n, 100000 - n, now() - $3::text::interval + (n - $1) * interval '1 second'
            from generate_series($1::bigint, $2::bigint) n
            """,
            [.int(orders.lowerBound), .int(orders.upperBound), .text(age)]
        )
        _ = try await engine.ledger.pool.query("select stock_ledger_advance(1, 100000)")
    }

    /// Archives, and says how many rows of the ledger were read for it.
    private func archiveCounting(_ rows: Int64, _ engine: StockEngine) async throws -> (moved: Int64, read: Int64) {
        try await engine.ledger.pool.transaction { transaction in
            let count =
                "select coalesce(sum(idx_tup_fetch + seq_tup_read), 0)::bigint from pg_stat_xact_user_tables where relname = 'stock_ledger'"
            let before = try transaction.query(count).one().decode(0, as: Int64.self)
            let moved = try transaction.query("select stock_archive(1, now() - interval '90 days', $1)", [.int(rows)]).one()
                .decode(0, as: Int64.self)
            return (moved, try transaction.query(count).one().decode(0, as: Int64.self) - before)
        }
    }

    /// The last call finds few old rows, or none, and must not look at all of the young ones for them.
    @Test func archivingReadsNoYoungRowsBehindTheOldOnes() async throws {
        let fixture = try await EngineFixture()
        let engine = try await fixture.startEngine()
        _ = try await fixture.addProduct(1, stock: 100_000)
        try await write(1...25, from: "100 days", engine)
        try await write(1_001...11_000, from: "40 days", engine)
        var (moved, read) = try await archiveCounting(10, engine)
        #expect(moved == 10 && read < 300, "\(read)")
        (moved, read) = try await archiveCounting(100, engine)
        #expect(moved == 15 && read < 300, "\(read)")
        (moved, read) = try await archiveCounting(100, engine)
        #expect(moved == 0 && read < 300, "\(read)")
        #expect(try await count("stock_ledger", engine) == 10_000)
        await fixture.stop()
    }

    /// A row that came back has the id of then and the time of its return: what is old behind it is archived all the same.
    @Test func rowsThatCameBackEndNoWalk() async throws {
        let fixture = try await EngineFixture()
        let engine = try await fixture.startEngine()
        _ = try await fixture.addProduct(1, stock: 100_000)
        try await write(1...20, from: "100 days", engine)
        #expect(try await archiveCounting(10, engine).moved == 10)
        for order in Int64(1)...10 {
            #expect(await engine.decrease(decrease(order)) == .sold(remaining: 100_000 - order, replayed: true))
        }
        #expect(try await count("stock_ledger", engine) == 20)
        #expect(try await archiveCounting(100, engine).moved == 10)
        // A transaction that waited for the row's lock has an earlier time than the one before it, and ends no walk either.
        try await write(31...31, from: "89 days 23 hours 30 minutes", engine)
        try await write(32...32, from: "91 days", engine)
        #expect(try await archiveCounting(100, engine).moved == 1)
        #expect(try await count("stock_archived_keys", engine) == 11)
        await fixture.stop()
    }

    /// Every key is repeated again and again while its row moves out of the ledger and back.
    @Test func repeatsWhileRowsMoveAreNeverSoldAgain() async throws {
        let fixture = try await EngineFixture()
        let engine = try await fixture.startEngine()
        let product = try await fixture.addProduct(1, stock: 1_000)
        let orders = Int64(1)...40
        for order in orders { _ = await engine.decrease(decrease(order, isRepeat: false)) }
        _ = try await engine.ledger.pool.query("select stock_ledger_advance(1, 1000)")
        _ = try await engine.ledger.pool.query("update stock_ledger set created_at = now() - interval '40 days'")
        let pool = engine.ledger.pool
        let moves = Moves()
        let deadline = ContinuousClock.now + .seconds(150)
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                while moves.count.load(ordering: .relaxed) < 200, ContinuousClock.now < deadline {
                    moves.count.add(
                        try await pool.query("select stock_archive(1, now(), 7)").one().decode(0, as: Int64.self),
                        ordering: .relaxed
                    )
                    // What came back is young.
                    _ = try await pool.query(
                        "update stock_ledger set created_at = now() - interval '40 days' where created_at > now() - interval '1 hour'"
                    )
                }
            }
            for worker in Int64(0)..<8 {
                group.addTask {
                    var round: Int64 = 0
                    while moves.count.load(ordering: .relaxed) < 200, ContinuousClock.now < deadline {
                        round += 1
                        let order = (worker * 7 + round) % 40 + 1
                        switch await engine.decrease(decrease(order)) {
                        case .sold(_, let replayed): #expect(replayed)
                        case .unavailable: break
                        case let answer: Issue.record("order \(order): \(answer)")
                        }
                    }
                }
            }
            try await group.waitForAll()
        }
        #expect(moves.count.load(ordering: .relaxed) >= 200)
        let totals = try #require(try await engine.ledger.totals(of: product))
        #expect(totals.stock == 960 && totals.sold == 40)
        await fixture.stop()
    }

    /// Rows moved into the archive.
    private final class Moves: Sendable {
        let count = Atomic<Int64>(0)
    }

    private struct Unexpected: Error { let what: String }
}
