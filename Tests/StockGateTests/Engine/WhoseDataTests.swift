import CircuitBreaker
import Eventually
import PostgresClient
import RedisClient
import StockGate
import PrivateServers
import Synchronization
import Testing

/// Redis is ahead of the ledger, or holds what another ledger installed.
@Suite(.serialized, .timeLimit(.minutes(10)))
struct WhoseDataTests {
    private func ask(_ engine: StockEngine, _ product: ProductID, _ order: Int64) async -> DecreaseAnswer {
        await engine.decrease(DecreaseRequest(product: product, key: "DEC-\(order)", orderID: order, quantity: 1, isRepeat: false))
    }

    private func quiet(_ configuration: inout EngineConfiguration) {
        configuration.auditInterval = .seconds(3600)
        configuration.sweepInterval = .seconds(3600)
    }

    /// What a restore of a backup from before the sale does to the ledger.
    private func restore(_ engine: StockEngine) async throws {
        _ = try await engine.ledger.pool.query("delete from stock_ledger")
        _ = try await engine.ledger.pool.query("update product_stock set stock = initial_stock, fence = 1")
    }

    private func raised(_ fixture: EngineFixture, _ engine: StockEngine, _ product: ProductID) async throws -> Int64 {
        for _ in 0..<10 { _ = await engine.resync(product) }
        return try #require(try await engine.audit(product)).ledger.fence.rawValue
    }

    /// Redis says *sold out*, so nobody comes as far as the ledger: the audit sees that it is ahead.
    @Test func theAuditRaisesTheFenceOfARestoredLedger() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 100)
            let engine = try await fixture.startEngine()
            let first = await Rush.run(engine, product, orders: 1..<201)
            #expect(first.sold.count == 100)
            let fence = try await raised(fixture, engine, product)
            try await restore(engine)
            #expect(try await eventually { try await fixture.isExact(product, engine) })
            let audit = try #require(try await engine.audit(product))
            #expect(audit.ledger.fence.rawValue == fence + 1 && audit.ledger.stock == 100)
            #expect(engine.metrics.raisedAboveRedis.count == 1)
            // Order ids go on, as after a restore of the product database alone. Marks of what was lost say *already done*, and are not believed.
            let second = await Rush.run(engine, product, orders: 150..<400)
            #expect(second.sold.count == 100)
            #expect(try await fixture.books(product).stock == 0)
            #expect(try await eventually { try await fixture.isExact(product, engine) })
        }
    }

    @Test(arguments: ["a commit", "a connection", "a start", "an operator"])
    func whoElseSeesThatRedisIsAhead(_ who: String) async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 100)
            var engine = try await fixture.startEngine(quiet)
            for order in Int64(1)...5 { #expect(await ask(engine, product, order) == .sold(remaining: 100 - order, replayed: false)) }
            let fence = try await raised(fixture, engine, product)
            try await restore(engine)
            switch who {
            case "a commit": #expect(await ask(engine, product, 6) == .sold(remaining: 99, replayed: false))
            case "a connection":
                let before = engine.redisSnapshot()
                _ = try fixture.redis.call(["CLIENT", "KILL", "TYPE", "normal"])
                // Every loop's: who has none yet goes without Redis, which is looked at below.
                #expect(try await eventually { engine.redisSnapshot().connects >= before.connects + before.ready })
            case "a start": engine = try await fixture.startEngine(quiet)
            default:
                guard case .installed(let state) = await engine.resync(product) else {
                    Issue.record("not installed")
                    return
                }
                #expect(state.fence.rawValue == fence + 1 && state.stock == 100)
            }
            #expect(try await eventually { try await fixture.isExact(product, engine) }, "\(who)")
            // In one step; new connections of a start may have it installed once more.
            #expect((fence + 1...fence + 8).contains(try #require(try await engine.audit(product)).ledger.fence.rawValue))
            let direct = engine.metrics.direct.count
            let rush = await Rush.run(engine, product, orders: 100..<300)
            #expect(rush.sold.count == (who == "a commit" ? 99 : 100))
            #expect(engine.metrics.direct.count == direct)
            #expect(try await eventually { try await fixture.isExact(product, engine) })
        }
    }

    /// The statement that raises waits for no row. One product whose row is locked fails alone, and is raised when the row is free.
    @Test func aRestoredRowThatIsLockedIsRaisedWhenItIsFree() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 100)
            let other = try await fixture.addProduct(2, stock: 100)
            let heard = Mutex<[String]>([])
            let engine = try await fixture.startEngine(quiet) { event in
                if case .resyncFailed(let id, let why) = event { heard.withLock { $0.append("\(id): \(why)") } }
            }
            let fence = try await raised(fixture, engine, product)
            _ = try await raised(fixture, engine, other)
            try await restore(engine)
            try await fixture.holdingTheRow(of: product) {
                _ = try fixture.redis.call(["CLIENT", "KILL", "TYPE", "normal"])
                #expect(try await eventually { try await fixture.isExact(other, engine) })
                #expect(try await eventually { heard.withLock { !$0.isEmpty } })
                #expect(engine.metrics.raisedAboveRedis.count == 1)
            }
            #expect(try await eventually { try await fixture.isExact(product, engine) })
            let lines = heard.withLock { $0 }
            #expect(lines.allSatisfy { $0.hasPrefix("1: PostgreSQL: ") && $0.contains("locked") }, "\(lines)")
            #expect((fence + 1...fence + 8).contains(try #require(try await engine.audit(product)).ledger.fence.rawValue))
            #expect(engine.metrics.raisedAboveRedis.count >= 2)
        }
    }

    /// What Redis owes under fences that the ledger has lost is not counted by an install that comes to such a fence again.
    @Test func whatIsOwedToALostHistoryIsNotCounted() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 100)
            let engine = try await fixture.startEngine(quiet)
            let fence = try await raised(fixture, engine, product)
            _ = try fixture.redis.call(["HSET", "sg:{1}:owed", "\(fence + 1)", "-7", "\(fence + 3)", "5"])
            try await restore(engine)
            guard case .installed(let state) = await engine.resync(product) else {
                Issue.record("not installed")
                return
            }
            #expect(state.fence.rawValue == fence + 4)
            #expect(try await fixture.isExact(product, engine))
            #expect(try fixture.redis.call(["HLEN", "sg:{1}:owed"]) == ":0\r\n")
        }
    }

    /// A fence that nobody can have installed is somebody's writing: the product is installed over it, and the ledger's fence stays what it was.
    @Test func aFenceOfAnySortIsInstalledOver() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 100)
            let engine = try await fixture.startEngine(quiet)
            var order: Int64 = 0
            for text in [
                "4503599627370496", "9007199254740993", "9223372036854775807", "99999999999999999999", "1e300", "nan", "-inf", "many", "",
            ] {
                _ = try fixture.redis.call(["HSET", "sg:{1}:meta", "fence", text])
                order += 1
                #expect(await ask(engine, product, order) == .sold(remaining: 100 - order, replayed: false), "\(text)")
                #expect(try await eventually { try await fixture.isExact(product, engine) }, "\(text)")
                let fence = try #require(try await engine.audit(product)).ledger.fence.rawValue
                #expect(fence < 1000, "\(text)")
            }
        }
    }

    /// A counter that is there and is no number is not a missing one: nobody is told that the product is not on sale.
    @Test func aCounterOfAnySortIsMadeAnew() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 100)
            let engine = try await fixture.startEngine(quiet)
            var order: Int64 = 0
            for text in ["abc", "", "0x", "1,000", "5.5", "1e3", "nan", "inf", "99999999999999999999999", "-9223372036854775809"] {
                _ = try fixture.redis.call(["SET", "sg:{1}:stock", text])
                order += 1
                #expect(await ask(engine, product, order) == .sold(remaining: 100 - order, replayed: false), "\(text)")
                #expect(try await eventually { try await fixture.isExact(product, engine) }, "\(text)")
            }
        }
    }

    /// An empty name is no ledger's.
    @Test func anEmptyLedgersNameIsWrittenOver() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 100)
            let engine = try await fixture.startEngine(quiet)
            #expect(await ask(engine, product, 1) == .sold(remaining: 99, replayed: false))
            let fence = try #require(try await engine.audit(product)).ledger.fence.rawValue
            _ = try fixture.redis.call(["HSET", "sg:{1}:meta", "ledger", ""])
            #expect(await ask(engine, product, 2) == .sold(remaining: 98, replayed: false))
            _ = try fixture.redis.call(["HSET", "sg:{1}:meta", "ledger", "", "stamp", "lost"])
            #expect(await ask(engine, product, 3) == .sold(remaining: 97, replayed: false))
            #expect(try await eventually { try await fixture.isExact(product, engine) })
            #expect(try fixture.redis.call(["HGET", "sg:{1}:meta", "ledger"]).contains(engine.ledgerName))
            let later = try #require(try await engine.audit(product)).ledger.fence.rawValue
            #expect(later <= fence + 2)
            #expect(engine.foreignProductCount == 0)
        }
    }

    /// Rights that one product's keys lack are that product's trouble.
    @Test func aProductWhoseKeysMayNotBeUsedHarmsNoOther() async throws {
        try await withFixture { fixture in
            let (guilty, innocent) = (try await fixture.addProduct(1, stock: 100), try await fixture.addProduct(2, stock: 100))
            let engine = try await fixture.startEngine(quiet)
            for product in [guilty, innocent] { #expect(try await eventually { try await fixture.isExact(product, engine) }) }
            _ = try fixture.redis.call(["ACL", "SETUSER", "default", "resetkeys", "~sg:{2}:*", "~sg:{0}:*"])
            for order in Int64(1)...20 {
                #expect(await ask(engine, guilty, order) == .sold(remaining: 100 - order, replayed: false))
                #expect(await ask(engine, innocent, 100 + order) == .sold(remaining: 100 - order, replayed: false))
            }
            #expect(engine.breaker.state == .closed)
            #expect(try await eventually { try await fixture.isExact(innocent, engine) })
            _ = try fixture.redis.call(["ACL", "SETUSER", "default", "allkeys"])
            #expect(try await eventually { try await fixture.isExact(guilty, engine) })
        }
    }

    @Test func anotherLedgersDataIsNotUsed() async throws {
        try await withFixture { fixture in
            var products: [ProductID] = []
            for id in Int64(1)...3 { products.append(try await fixture.addProduct(id, stock: 20)) }
            let own = try await fixture.addProduct(4, stock: 20)
            let first = try await fixture.startEngine(quiet)
            for product in products { #expect(try await eventually { try await fixture.isExact(product, first) }) }
            for id in 1...3 { _ = try fixture.redis.call(["HSET", "sg:{\(id)}:meta", "ledger", "1/other/public"]) }
            let heard = Mutex<[String]>([])
            let engine = try await fixture.startEngine(onEvent: { event in
                switch event {
                case .foreignLedger(_, let theirs, let ours): heard.withLock { $0.append("\(theirs) is not \(ours)") }
                case .foreignLedgerGone: heard.withLock { $0.append("gone") }
                default: break
                }
            })
            #expect(engine.breaker.state == .closed)
            #expect(engine.foreignProductCount == 3)
            #expect(heard.withLock { $0 } == ["1/other/public is not \(engine.ledgerName)"])
            let before = try (1...3).map { try fixture.redis.call(["HGETALL", "sg:{\($0)}:meta"]) }
            for product in products {
                let rush = await Rush.run(engine, product, orders: product.rawValue * 1000..<product.rawValue * 1000 + 40)
                #expect(rush.sold.count == 20 && rush.unknown.isEmpty)
                let order = product.rawValue * 1000
                let key = try #require(rush.sold.first)
                let back = IncreaseRequest(
                    product: product,
                    key: "INC-" + key.dropFirst(4),
                    orderID: Int64(key.dropFirst(4)) ?? 0,
                    quantity: 1
                )
                #expect(await engine.increase(back) == .added(quantity: 1, remaining: 1, replayed: false), "\(order)")
                #expect(await engine.resync(product) == .foreign("1/other/public"))
            }
            // The first engine knew the product as its own; what Redis says now is heard by it, too.
            #expect(await ask(first, products[0], 9000) == .sold(remaining: 0, replayed: false))
            #expect(first.foreignProductCount >= 1)
            // An audit comes by, and finds what is wrong with its own product alone.
            #expect(try await eventually { try await fixture.isExact(own, engine) })
            _ = try fixture.redis.call(["INCRBY", "sg:{4}:stock", "3"])
            #expect(try await eventually { engine.metrics.auditFindings.count > 0 })
            #expect(try await eventually { try await fixture.isExact(own, engine) })
            #expect(engine.metrics.auditFindings.count == 1)
            #expect(try (1...3).map { try fixture.redis.call(["HGETALL", "sg:{\($0)}:meta"]) } == before)
            for id in 1...3 { #expect(try fixture.redis.call(["GET", "sg:{\(id)}:stock"]) == "$2\r\n20\r\n") }
            #expect(await ask(engine, own, 9001) == .sold(remaining: 19, replayed: false))
            #expect(try await eventually { try await fixture.isExact(own, engine) })
            // Its keys are deleted, as the log says: everything is gated again.
            for id in 1...3 { _ = try fixture.redis.call(["DEL", "sg:{\(id)}:meta", "sg:{\(id)}:stock"]) }
            for product in products { #expect(try await eventually { try await fixture.isExact(product, engine) }) }
            #expect(try await eventually { engine.foreignProductCount == 0 })
            #expect(try await eventually { heard.withLock { $0 }.last == "gone" })
            let name = engine.ledgerName
            #expect(try fixture.redis.call(["HGET", "sg:{1}:meta", "ledger"]) == "$\(name.utf8.count)\r\n\(name)\r\n")
            #expect(engine.metrics.auditFindings.count == 1)
        }
    }

    /// Keys of another ledger that no script can use are that one's to make anew, and a recovery does not void them.
    @Test func anotherLedgersKeysAreNeitherMendedNorVoided() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 20)
            let first = try await fixture.startEngine(quiet)
            #expect(try await eventually { try await fixture.isExact(product, first) })
            await first.shutdown()
            _ = try fixture.redis.call(["HSET", "sg:{1}:meta", "ledger", "1/other/public"])
            _ = try fixture.redis.call(["SET", "sg:{1}:pending", "of another type"])
            let names = ["meta", "stock", "pending", "marker"].map { "sg:{1}:\($0)" }
            let before = try names.map { try fixture.redis.call(["DUMP", $0]) }
            let heard = Mutex<[String]>([])
            let engine = try await fixture.startEngine(onEvent: { event in
                if case .leftDirect(let id, let why) = event { heard.withLock { $0.append("\(id): \(why)") } }
            })
            #expect(engine.breaker.state == .closed)
            // What a recovery has left is told behind the moment in which the breaker closes.
            #expect(try await eventually { heard.withLock { !$0.isEmpty } })
            let told = heard.withLock { $0 }
            #expect(told.count == 1 && told[0].hasPrefix("1: Redis: WRONGTYPE"), "\(told)")
            let rush = await Rush.run(engine, product, orders: 1..<41)
            #expect(rush.sold.count == 20 && rush.unknown.isEmpty)
            #expect(engine.metrics.reserves.count == 0)
            #expect(try names.map { try fixture.redis.call(["DUMP", $0]) } == before)
            // The other one's servers have made it right: it is theirs, and nothing else is wrong with it.
            _ = try fixture.redis.call(["DEL", "sg:{1}:pending"])
            #expect(try await eventually { engine.foreignProductCount == 1 })
            _ = try fixture.redis.call(["DEL", "sg:{1}:meta"])
            #expect(try await eventually { try await fixture.isExact(product, engine) })
        }
    }

    /// Two deployments on one Redis, each with a product 1.
    @Test func twoLedgersOnOneRedis() async throws {
        try await withFixture { one in
            // Private servers are copies of one cluster, and have one system identifier: the database tells them apart.
            try await withFixture(database: "shop2") { two in
                let product = try await one.addProduct(1, stock: 50)
                _ = try await two.addProduct(1, stock: 30)
                let first = try await one.startEngine()
                let settings = try RedisConfiguration(url: one.redis.url)
                let second = try await two.startEngine { $0.redis.address = settings.address }
                #expect(first.ledgerName != second.ledgerName)
                #expect(second.foreignProductCount == 1 && first.foreignProductCount == 0)
                async let a = Rush.run(first, product, orders: 1..<101)
                async let b = Rush.run(second, product, orders: 1..<101)
                let (sold, theirs) = await (a, b)
                #expect(sold.sold.count == 50 && theirs.sold.count == 30)
                #expect(try await eventually { try await one.isExact(product, first) })
                #expect(second.metrics.reserves.count == 0)
                // Redis is emptied. Whoever comes first has it, and nobody is oversold.
                _ = try one.redis.call(["FLUSHALL"])
                _ = try await first.adjust(product, key: "a", by: 40, maximum: 1000)
                _ = try await second.adjust(product, key: "a", by: 40, maximum: 1000)
                // Redis holds no units for its owner until the owner's install has come, which the change by hand has asked for.
                #expect(
                    try await eventually {
                        guard first.foreignProductCount + second.foreignProductCount == 1 else { return false }
                        return first.foreignProductCount == 0
                            ? try await one.isExact(product, first) : try await two.isExact(product, second)
                    }
                )
                async let c = Rush.run(first, product, orders: 200..<300)
                async let d = Rush.run(second, product, orders: 200..<300)
                let (again, theirsAgain) = await (c, d)
                #expect(again.sold.count == 40 && theirsAgain.sold.count == 40)
                #expect(try await eventually { first.foreignProductCount + second.foreignProductCount == 1 })
                let owner = first.foreignProductCount == 0 ? (one, first) : (two, second)
                #expect(try await eventually { try await owner.0.isExact(product, owner.1) })
            }
        }
    }

    /// A version before wrote no name. Its data is used as it is, and named by the next install.
    @Test func dataWithoutANameIsAdopted() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 10)
            let engine = try await fixture.startEngine(quiet)
            #expect(try await eventually { try await fixture.isExact(product, engine) })
            _ = try fixture.redis.call(["HDEL", "sg:{1}:meta", "ledger"])
            let resyncs = engine.metrics.resyncs.count
            #expect(await ask(engine, product, 1) == .sold(remaining: 9, replayed: false))
            #expect(engine.metrics.resyncs.count == resyncs && engine.metrics.direct.count == 0)
            _ = await engine.resync(product)
            let name = engine.ledgerName
            #expect(name.split(separator: "/").count == 3 && name.hasSuffix("/public"))
            #expect(try fixture.redis.call(["HGET", "sg:{1}:meta", "ledger"]) == "$\(name.utf8.count)\r\n\(name)\r\n")
        }
    }

    /// A role that may not ask for the cluster's identifier: its ledger has no name, and everything works as without names.
    @Test func aLedgerThatCannotBeNamed() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 10)
            let named = try await fixture.startEngine(quiet)
            let pool = named.ledger.pool
            _ = try await pool.query("revoke execute on function pg_control_system() from public")
            _ = try await pool.query("create role poor")
            let name = try await pool.transaction { session in
                _ = try session.query("set local role poor")
                return try session.query("select stock_ledger_name()").one().decode(0, as: String.self)
            }
            #expect(name == "")
            _ = try await pool.query("create or replace function stock_ledger_name() returns text language sql as 'select ''''::text'")
            let engine = try await fixture.startEngine(quiet)
            #expect(engine.ledgerName == "")
            #expect(await ask(engine, product, 1) == .sold(remaining: 9, replayed: false))
            #expect(engine.metrics.direct.count == 0)
            _ = await engine.resync(product)
            #expect(try fixture.redis.call(["HGET", "sg:{1}:meta", "ledger"]).contains("/public"))
        }
    }
}
