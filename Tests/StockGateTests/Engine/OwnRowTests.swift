import PostgresClient
import PrivateServers
import StockGate
import Testing

/// The connection is lost while a first attempt is committed, so that the commit is sent again and finds a row. The row may be the attempt's own, or that of
/// an order whose id came round again: only its own confirms an order.
@Suite(.serialized, .timeLimit(.minutes(10)))
struct OwnRowTests {
    private func withProxy(gated: Bool, _ body: (EngineFixture, StockEngine, FaultProxy, ProductID) async throws -> Void) async throws {
        let fixture = try await EngineFixture()
        let proxy = try await FaultProxy.start(to: fixture.postgres.port)
        do {
            let product = try await fixture.addProduct(1, stock: 100, gated: gated)
            let url = "postgresql://postgres@127.0.0.1:\(proxy.port)/postgres"
            let engine = try await fixture.startEngine { configuration in
                if let postgres = try? PostgresConfiguration(url: url) { configuration.ledger = LedgerConfiguration(postgres: postgres) }
                // Nothing but the commit is answered through the proxy.
                configuration.auditInterval = .seconds(3600)
                configuration.sweepInterval = .seconds(3600)
                configuration.gatedRefresh = .seconds(3600)
                configuration.pruneInterval = .seconds(3600)
            }
            // The statement is prepared with the first of them, and a reply to that says nothing of a commit.
            let first = DecreaseRequest(product: product, key: "DEC-1", orderID: 1, quantity: 1, isRepeat: false)
            #expect(await engine.decrease(first) == .sold(remaining: 99, replayed: false))
            try await body(fixture, engine, proxy, product)
        } catch {
            await fixture.stop()
            try await proxy.shutdown()
            throw error
        }
        await fixture.stop()
        try await proxy.shutdown()
    }

    /// A first attempt whose commit is carried out, and whose reply is lost on the way.
    private func ask(_ engine: StockEngine, _ proxy: FaultProxy, _ product: ProductID, order: Int64) async throws -> DecreaseAnswer {
        let before = engine.metrics.unknownCommits.count
        try await proxy.reset(afterBytes: 1, .toClient)
        let answer = await engine.decrease(
            DecreaseRequest(product: product, key: "DEC-\(order)", orderID: order, quantity: 1, isRepeat: false)
        )
        #expect(engine.metrics.unknownCommits.count > before, "no reply was lost")
        return answer
    }

    /// As another server has written it for an earlier order, without a reservation.
    private func addEarlierOrder(_ fixture: EngineFixture, order: Int64) async throws {
        try await fixture.sql(
            "select stock_commit(array[1], array['DEC-\(order)'], array[1], array[\(order)], array[0], array[4711], array[0])"
        )
    }

    @Test("without a reservation", arguments: [false, true])
    func direct(_ isEarlier: Bool) async throws {
        try await withProxy(gated: false) { fixture, engine, proxy, product in
            if isEarlier { try await addEarlierOrder(fixture, order: 7) }
            #expect(try await ask(engine, proxy, product, order: 7) == .sold(remaining: 98, replayed: isEarlier))
            #expect(engine.metrics.direct.count > 0)
            #expect(try await engine.audit(product)?.ledger.stock == 98)
        }
    }

    @Test("under a reservation", arguments: [false, true])
    func reserved(_ isEarlier: Bool) async throws {
        try await withProxy(gated: true) { fixture, engine, proxy, product in
            if isEarlier { try await addEarlierOrder(fixture, order: 7) }
            #expect(try await ask(engine, proxy, product, order: 7) == .sold(remaining: 98, replayed: isEarlier))
            #expect(engine.metrics.direct.count == 0)
            #expect(try await engine.audit(product)?.ledger.stock == 98)
        }
    }
}
