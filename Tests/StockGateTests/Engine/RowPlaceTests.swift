import Dispatch
import PostgresClient
import PrivateServers
import StockGate
import Testing

/// The hot row is found where it lies, however many of its dead versions somebody's open transaction keeps.
@Suite("The row's place", .serialized, .timeLimit(.minutes(10)))
struct RowPlaceTests {
    /// Pages that one commit of one unit looks at.
    private func pages(_ session: PostgresSession, _ key: String) throws -> Int {
        let statement = "select outcome from stock_commit('{1}', '{\(key)}', '{1}', '{1}', '{1}', '{1}', '{1}')"
        var hits = 0
        for row in try session.query("explain (analyze, buffers, timing off, costs off) " + statement) {
            let line = try row.decode(0, as: String.self)
            guard hits == 0, let found = line.firstRange(of: "shared hit=") else { continue }
            hits = Int(line[found.upperBound...].prefix { $0.isNumber }) ?? 0
        }
        return hits
    }

    @Test func aCommitDoesNotWalkTheVersionsThatAnOpenTransactionKeeps() async throws {
        let fixture = try await EngineFixture()
        _ = try await fixture.addProduct(1, stock: 1_000_000)
        var configuration = try PostgresConfiguration.patient(fixture.postgres.url)
        configuration.idleInTransactionTimeout = .zero
        let analyst = PostgresPool(configuration: configuration, maximumConnections: 1)
        let session = PostgresSession(configuration: configuration)
        _ = try session.query(
            """
            create procedure sell(first int, last int) language plpgsql as $$
            begin
              for n in first..last loop
                perform stock_commit('{1}', array['DEC-' || n], '{1}', array[n], '{1}', '{1}', '{1}');
                commit;
              end loop;
            end $$
            """
        )
        let released = DispatchSemaphore(value: 0)
        let (open, isOpen) = AsyncStream.makeStream(of: Void.self)
        let holding = Task {
            try await analyst.transaction(timeout: .seconds(120)) { transaction in
                try transaction.execute(script: "set transaction isolation level repeatable read; select count(*) from product_stock")
                isOpen.yield()
                released.wait()
            }
        }
        for await _ in open { break }
        _ = try session.query("call sell(1, 50)")
        let before = try (0..<5).map { try pages(session, "before-\($0)") }.min() ?? 0
        _ = try session.query("call sell(51, 4050)")
        let after = try (0..<5).map { try pages(session, "after-\($0)") }.min() ?? 0
        // 4,000 versions lie on some 40 pages, which the lock and the update walked once each.
        #expect(before > 0 && after < before + 25, "\(before) pages before, \(after) after")
        // Somebody else moves the row: the place is out of date, and the commit is right all the same.
        _ = try await fixture.books(ProductID(1))
        let stranger = PostgresSession(configuration: configuration)
        _ = try stranger.query("update product_stock set stock = stock - 5, initial_stock = initial_stock - 5 where product_id = 1")
        stranger.close()
        _ = try session.query("call sell(5001, 5010)")
        released.signal()
        try await holding.value
        session.close()
        let books = try await fixture.books(ProductID(1))
        #expect(books.rows == 50 + 5 + 4_000 + 5 + 10)
        #expect(books.stock == 1_000_000 - 5 - books.sold)
        await analyst.shutdown()
        await fixture.stop()
    }

    /// Two products of one slot, and a place that belongs to the other one.
    @Test func aPlaceIsNeverTakenForAnotherProducts() async throws {
        let fixture = try await EngineFixture()
        let (one, other) = (try await fixture.addProduct(1, stock: 10), try await fixture.addProduct(65, stock: 10))
        let session = PostgresSession(configuration: try PostgresConfiguration.patient(fixture.postgres.url))
        for n in 0..<6 {
            let product = n.isMultiple(of: 2) ? 1 : 65
            let row = try session.query(
                "select outcome, remaining from stock_commit('{\(product)}', '{DEC-\(n)}', '{1}', '{\(n)}', '{1}', '{1}', '{1}')"
            ).one()
            #expect(try row.decode(0, as: Int64.self) == 0 && row.decode(1, as: Int64.self) == 9 - Int64(n / 2))
        }
        // A place where nothing is, and one of a row that is gone.
        _ = try session.query("select set_config('stockgate.row_1', '(99999,1)', false)")
        #expect(
            try session.query("select outcome from stock_commit('{1}', '{DEC-9}', '{1}', '{9}', '{1}', '{1}', '{1}')").one().decode(
                0,
                as: Int64.self
            ) == 0
        )
        #expect(
            try session.query("select outcome from stock_commit('{129}', '{DEC-10}', '{1}', '{9}', '{1}', '{1}', '{1}')").one().decode(
                0,
                as: Int64.self
            ) == 6
        )
        session.close()
        #expect(try await fixture.books(one).stock == 6)
        #expect(try await fixture.books(other).stock == 7)
        await fixture.stop()
    }
}
