import Eventually
import PostgresClient
import StockGate
import PrivateServers
import Testing

/// Single keys of a product are gone from Redis: evicted, or deleted by hand. What is absent is not loaded; it says nothing about the product.
@Suite(.serialized, .timeLimit(.minutes(10)))
struct LostKeysTests {
    private func ask(_ engine: StockEngine, _ product: ProductID, _ order: Int64, isRepeat: Bool = false) async -> DecreaseAnswer {
        await engine.decrease(DecreaseRequest(product: product, key: "DEC-\(order)", orderID: order, quantity: 1, isRepeat: isRepeat))
    }

    /// No audit and no sweep help: the first buyer does.
    private func quiet(_ configuration: inout EngineConfiguration) {
        configuration.auditInterval = .seconds(3600)
        configuration.sweepInterval = .seconds(3600)
    }

    @Test func theFirstBuyerAfterTheCounterIsLostGetsHisUnit() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 1000)
            let engine = try await fixture.startEngine(quiet)
            #expect(await ask(engine, product, 1) == .sold(remaining: 999, replayed: false))
            #expect(try await eventually { try await fixture.isExact(product, engine) })
            for round in Int64(0)..<5 {
                #expect(try fixture.redis.call(["DEL", "sg:{1}:stock"]) == ":1\r\n")
                let view = try #require(try await engine.audit(product)?.gate)
                #expect(view.counter == nil && !view.isLoaded && !view.isOffSale)
                #expect(await ask(engine, product, 2 + round) == .sold(remaining: 998 - round, replayed: false))
                #expect(try await eventually { try await fixture.isExact(product, engine) })
            }
            // The product was installed anew, and the buyers went through the gate again.
            #expect(engine.metrics.direct.count == 0)
            #expect(engine.metrics.auditFindings.count == 0)
        }
    }

    @Test func aReleaseMakesNoCounter() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 1000)
            let engine = try await fixture.startEngine(quiet)
            #expect(await ask(engine, product, 1) == .sold(remaining: 999, replayed: false))
            #expect(try await eventually { try await fixture.isExact(product, engine) })
            // The key is used and its mark is gone: the reservation goes back once the ledger has refused it.
            _ = try fixture.redis.call(["DEL", "sg:{1}:marks"])
            fixture.postgres.pause()
            let other = DecreaseRequest(product: product, key: "DEC-1", orderID: 2, quantity: 7, isRepeat: false)
            async let refused = engine.decrease(other)
            #expect(try await eventually { try fixture.redis.call(["HLEN", "sg:{1}:pending"]) == ":1\r\n" })
            _ = try fixture.redis.call(["DEL", "sg:{1}:stock"])
            fixture.postgres.resume()
            #expect(await refused == .keyReused)
            #expect(try await eventually { try fixture.redis.call(["HLEN", "sg:{1}:pending"]) == ":0\r\n" })
            let resyncs = engine.metrics.resyncs.count
            func expectNoneMade() throws {
                let counter = try fixture.redis.call(["EXISTS", "sg:{1}:stock"])
                // A machine that is busy may lose a connection, and a new one has the product installed.
                #expect(counter == ":0\r\n" || engine.metrics.resyncs.count > resyncs)
            }
            try expectNoneMade()
            // A returned unit makes none either.
            let back = IncreaseRequest(product: product, key: "INC-1", orderID: 1, quantity: 1)
            #expect(await engine.increase(back) == .added(quantity: 1, remaining: 1000, replayed: false))
            #expect(try await eventually { engine.metrics.applies.count == 1 })
            try expectNoneMade()
            #expect(await ask(engine, product, 3) == .sold(remaining: 999, replayed: false))
            #expect(try await eventually { try await fixture.isExact(product, engine) })
        }
    }

    /// What the install wrote is believed: nobody asks the ledger for a product that is not on sale.
    @Test func whatIsNotOnSaleIsRefusedAtTheGate() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 10)
            let engine = try await fixture.startEngine(quiet)
            _ = try await engine.ledger.pool.query("update product_stock set is_on_sale = false, fence = fence + 1")
            guard case .installed = await engine.resync(product) else {
                Issue.record("not installed")
                return
            }
            // New connections may have it installed once more; buyers do not.
            let few: UInt64 = 5
            var resyncs = engine.metrics.resyncs.count
            for order in Int64(1)...20 { #expect(await ask(engine, product, order) == .notOnSale) }
            #expect(engine.metrics.direct.count == 0 && engine.metrics.resyncs.count < resyncs + few)
            // As the version before left it: without the word of the install. It is installed again, once.
            resyncs = engine.metrics.resyncs.count
            _ = try fixture.redis.call(["HDEL", "sg:{1}:meta", "off"])
            #expect(await ask(engine, product, 21) == .notOnSale)
            #expect(try await eventually { engine.metrics.resyncs.count > resyncs })
            for order in Int64(22)...40 { #expect(await ask(engine, product, order) == .notOnSale) }
            #expect(engine.metrics.resyncs.count < resyncs + few)
            // On sale again: what the install wrote before says nothing any more.
            _ = try await engine.ledger.pool.query("update product_stock set is_on_sale = true, fence = fence + 1")
            _ = await engine.resync(product)
            _ = try fixture.redis.call(["DEL", "sg:{1}:stock"])
            #expect(await ask(engine, product, 50) == .sold(remaining: 9, replayed: false))
        }
    }

    /// Each key of a product, alone and with each other one, is lost while a buyer's commit is under way.
    @Test func everyKeyAloneAndInPairs() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 1000)
            let engine = try await fixture.startEngine { $0.sweepInterval = .seconds(3600) }
            #expect(try await eventually { try await fixture.isExact(product, engine) })
            let names = ["stock", "meta", "pending", "owed", "marks", "marker"]
            var order: Int64 = 0
            var sold: Int64 = 0
            for (index, first) in names.enumerated() {
                for second in names[index...] {
                    let lost = Set([first, second])
                    order += 10
                    #expect(await ask(engine, product, order) == .sold(remaining: 999 - sold, replayed: false), "\(lost)")
                    sold += 1
                    fixture.postgres.pause()
                    let (during, before) = (order + 1, order)
                    async let caught = ask(engine, product, during)
                    #expect(try await eventually { try fixture.redis.call(["HEXISTS", "sg:{1}:pending", "DEC-\(during)"]) == ":1\r\n" })
                    _ = try fixture.redis.call(["DEL"] + lost.map { "sg:{1}:\($0)" })
                    fixture.postgres.resume()
                    #expect(await caught == .sold(remaining: 999 - sold, replayed: false), "\(lost)")
                    sold += 1
                    #expect(await ask(engine, product, order + 2) == .sold(remaining: 999 - sold, replayed: false), "\(lost)")
                    sold += 1
                    // A repeat that does not say so, of a key whose mark may be gone.
                    #expect(await ask(engine, product, before) == .sold(remaining: 999 - sold + 3, replayed: true), "\(lost)")
                    #expect(try await eventually { try await fixture.isExact(product, engine) }, "\(lost)")
                    let books = try await fixture.books(product)
                    #expect(books.stock == 1000 - sold && books.sold == sold, "\(lost)")
                }
            }
            // What was told to buyers never came from a counter that was too small.
            #expect(engine.metrics.refused.count == 0 && engine.metrics.soldOutAtGate.count == 0)
        }
    }
}
