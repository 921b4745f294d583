import CircuitBreaker
import Eventually
import PostgresClient
import RedisClient
import StockGate
import PrivateServers
import Synchronization
import Testing

/// What stays in Redis, what a Redis without memory does, and a Redis that refuses what is needed.
@Suite(.serialized, .timeLimit(.minutes(10)))
struct RedisRoomTests {
    private func ask(_ engine: StockEngine, _ product: ProductID, _ order: Int64) async -> DecreaseAnswer {
        await engine.decrease(DecreaseRequest(product: product, key: "DEC-\(order)", orderID: order, quantity: 1, isRepeat: false))
    }

    /// Marks of so many sales, long past their retention.
    private func addOldMarks(_ count: Int, to product: Int64, _ redis: PrivateRedis) throws {
        for first in stride(from: 1, through: count, by: 50_000) {
            let script = "for i = \(first), \(min(count, first + 49_999)) do redis.call('ZADD', KEYS[1], i, 'DEC-old-' .. i) end"
            _ = try redis.call(["EVAL", script, "1", "sg:{\(product)}:marks"])
        }
    }

    private func marks(of product: Int64, _ redis: PrivateRedis) throws -> String { try redis.call(["ZCARD", "sg:{\(product)}:marks"]) }

    @Test func marksPastTheirRetentionGoWithoutAnotherSale() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 10)
            // Not gated any more, and in no table at all.
            _ = try await fixture.addProduct(2, stock: 10, gated: false)
            let engine = try await fixture.startEngine { $0.pruneInterval = .milliseconds(200) }
            #expect(await ask(engine, product, 1) == .sold(remaining: 9, replayed: false))
            #expect(try await eventually { try await fixture.isExact(product, engine) })
            // Another ledger's are its servers' to prune, from their first one on, and names like these are nobody's.
            _ = try fixture.redis.call(["HSET", "sg:{4}:meta", "ledger", "1/other/public"])
            for id in [1, 2, 3, 4] as [Int64] { try addOldMarks(20_000, to: id, fixture.redis) }
            for name in ["sg:{x}:marks", "sg:{0}:marks", "sg:{-1}:marks", "sg:{01}:marks"] {
                _ = try fixture.redis.call(["ZADD", name, "1", "a"])
            }
            for id in [2, 3] as [Int64] { #expect(try await eventually { try marks(of: id, fixture.redis) == ":0\r\n" }, "\(id)") }
            // What is within the retention stays: a repeat gets the first result.
            #expect(try await eventually { try marks(of: 1, fixture.redis) == ":1\r\n" })
            #expect(await ask(engine, product, 1) == .sold(remaining: 9, replayed: true))
            #expect(try await eventually { engine.metrics.prunedMarks.count == 60_000 })
            #expect(try marks(of: 4, fixture.redis) == ":20000\r\n")
            #expect(try fixture.redis.call(["EXISTS", "sg:{x}:marks", "sg:{0}:marks", "sg:{-1}:marks", "sg:{01}:marks"]) == ":4\r\n")
        }
    }

    /// Once the last sale is older than the retention, nothing of any sale is left, though nobody asks the gate for anything any more.
    @Test func nothingIsLeftOnceTheLastSaleIsBeyondTheRetention() async throws {
        try await withFixture { fixture in
            let products = [try await fixture.addProduct(1, stock: 300), try await fixture.addProduct(2, stock: 1000)]
            let engine = try await fixture.startEngine { configuration in
                let usual = configuration.pruneInterval
                #expect(usual <= .seconds(60), "in a shop, within a minute")
                configuration.pruneInterval = .milliseconds(200)
                configuration.markRetention = .seconds(1)
            }
            // One is sold out, one is not.
            for (product, first) in zip(products, [Int64(1), 10_001]) {
                #expect(await Rush.run(engine, product, orders: first..<first + 400).sold.count == (product == products[0] ? 300 : 400))
                #expect(try await eventually { try await fixture.isExact(product, engine) })
            }
            let reserves = engine.metrics.reserves.count
            for product in products {
                let keys = ["marks", "pending", "owed"].map { "sg:{\(product.rawValue)}:\($0)" }
                #expect(try await eventually { try fixture.redis.call(["EXISTS"] + keys) == ":0\r\n" }, "\(product)")
            }
            #expect(engine.metrics.reserves.count == reserves)
            #expect(engine.metrics.prunedMarks.count > 0)
            // The ledger knows what Redis has forgotten.
            let again = DecreaseRequest(product: products[1], key: "DEC-10001", orderID: 10_001, quantity: 1, isRepeat: false)
            guard case .sold(_, replayed: true) = await engine.decrease(again) else {
                Issue.record("the first result is lost")
                return
            }
        }
    }

    /// Redis has no memory left, all of it is marks that are past their retention: the recovery prunes them first.
    @Test func aRedisWithoutMemoryIsPrunedBeforeTheRecovery() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 1000)
            let engine = try await fixture.startEngine { $0.pruneInterval = .seconds(3600) }
            #expect(await ask(engine, product, 1) == .sold(remaining: 999, replayed: false))
            // As many as a slow machine prunes within the recovery's share of time, and more memory than is taken away.
            for id in [1, 2] as [Int64] { try addOldMarks(60_000, to: id, fixture.redis) }
            let info = try fixture.redis.call(["INFO", "memory"])
            let used = try #require(
                info.split(whereSeparator: \.isNewline).first { $0.hasPrefix("used_memory:") }.flatMap { Int($0.dropFirst(12)) }
            )
            _ = try fixture.redis.call(["CONFIG", "SET", "maxmemory", "\(used - 4_000_000)"])
            #expect(try fixture.redis.call(["SET", "x", "1"]).hasPrefix("-OOM"))
            let rush = await Rush.run(engine, product, orders: 2..<200)
            #expect(rush.sold.count == 198 && rush.unknown.isEmpty)
            #expect(try await eventually { engine.breaker.state == .closed })
            // Settles take some of those of their product along.
            #expect(engine.metrics.prunedMarks.count > 90_000)
            #expect(try marks(of: 2, fixture.redis) == ":0\r\n")
            #expect(try await eventually { try await fixture.isExact(product, engine) })
            let direct = engine.metrics.direct.count
            let again = await Rush.run(engine, product, orders: 200..<300)
            #expect(again.sold.count == 100)
            #expect(engine.metrics.direct.count == direct)
        }
    }

    @Test func aRedisThatIsTooOldIsNamed() async throws {
        try await withFixture(["--rename-command", "ZMSCORE", ""]) { fixture in
            try await expectNamed(fixture, url: fixture.redis.url, words: ["ZMSCORE: ", "nknown", "6.2 or later"])
        }
    }

    @Test(arguments: [
        ("~sg:* +@all -hincrby -zrem", ["HINCRBY: ", "ZREM: ", "can't run"]), ("~sg:* +@all -script", ["SCRIPT LOAD: NOPERM"]),
        ("~sg:* +@all -info", ["INFO: NOPERM"]), ("~other:* +@all", ["EVALSHA: NOPERM", "key"]),
        ("~sg:* +@all -evalsha", ["EVALSHA: NOPERM"]),
    ])
    func aUserWithoutTheRightsIsNamed(_ rules: String, _ words: [String]) async throws {
        try await withFixture { fixture in
            _ = try fixture.redis.call(["ACL", "SETUSER", "shop", "on", ">secret"] + rules.split(separator: " ").map(String.init))
            let url = "redis://shop:secret@127.0.0.1:\(fixture.redis.port)"
            let engine = try await expectNamed(fixture, url: url, words: words)
            // The right is given: Redis is used, without a restart.
            _ = try fixture.redis.call(["ACL", "SETUSER", "shop", "~sg:*", "+@all"])
            #expect(try await eventually { engine.breaker.state == .closed })
            #expect(try await eventually { try await fixture.isExact(ProductID(1), engine) })
            let direct = engine.metrics.direct.count
            #expect(await ask(engine, ProductID(1), 100) == .sold(remaining: 4, replayed: false))
            #expect(engine.metrics.direct.count == direct)
        }
    }

    @discardableResult
    private func expectNamed(_ fixture: EngineFixture, url: String, words: [String]) async throws -> StockEngine {
        let product = try await fixture.addProduct(1, stock: 10)
        let heard = Mutex<[String]>([])
        let settings = try RedisConfiguration(url: url)
        let engine = try await fixture.startEngine({ configuration in
            configuration.redis.address = settings.address
            configuration.redis.username = settings.username
            configuration.redis.password = settings.password
        }) { event in
            if case .redisRefuses(let why) = event { heard.withLock { $0.append(why) } }
        }
        for order in Int64(1)...5 { #expect(await ask(engine, product, order) == .sold(remaining: 10 - order, replayed: false)) }
        // Some more connections are tried, and nothing more is said.
        let failures = engine.redisSnapshot().connectFailures
        #expect(try await eventually { engine.redisSnapshot().connectFailures > failures + 4 })
        let lines = heard.withLock { $0 }
        #expect(lines.count == 1)
        for word in words { #expect(lines.first?.contains(word) == true, "\(lines)") }
        #expect(lines.first?.contains("secret") == false)
        #expect(engine.metrics.reserves.count == 0)
        return engine
    }
}
