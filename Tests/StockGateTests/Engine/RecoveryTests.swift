import CircuitBreaker
import Eventually
import PostgresClient
import RedisClient
import StockGate
import PrivateServers
import Synchronization
import Testing

/// What happened in an engine, for a test to look at.
private final class Events: Sendable {
    private let all = Mutex<[EngineEvent]>([])

    func append(_ event: EngineEvent) { all.withLock { $0.append(event) } }

    private func select<Value>(_ pick: (EngineEvent) -> Value?) -> [Value] { all.withLock { $0 }.compactMap(pick) }

    var leftDirect: [(product: ProductID, why: String)] {
        select { if case .leftDirect(let product, let why) = $0 { (product, why) } else { nil } }
    }
    var gatedAgain: [ProductID] { select { if case .gatedAgain(let product) = $0 { product } else { nil } } }
    var recovered: [(products: Int, direct: Int)] {
        select { if case .recovered(let products, let direct, _) = $0 { (products, direct) } else { nil } }
    }
    var recoveryFailed: [String] { select { if case .recoveryFailed(let why) = $0 { why } else { nil } } }
    var redisFailed: [String] { select { if case .redisFailed(let why) = $0 { why } else { nil } } }
    var resyncFailed: [ProductID] { select { if case .resyncFailed(let product, _) = $0 { product } else { nil } } }
}

/// Redis comes back, or one product's keys or row go wrong: what is well is sold through Redis, what is not is sold through the ledger.
@Suite(.serialized, .timeLimit(.minutes(15)))
struct RecoveryTests {
    private func buy(_ engine: StockEngine, _ product: ProductID, _ order: Int64) async -> DecreaseAnswer {
        await engine.decrease(
            DecreaseRequest(product: product, key: "DEC-\(product)-\(order)", orderID: order, quantity: 1, isRepeat: false)
        )
    }

    /// Buys so many, and says how many of them went without Redis.
    private func directOf(_ count: Int64, _ engine: StockEngine, _ product: ProductID, from first: Int64) async -> UInt64 {
        let before = engine.metrics.direct.count
        for order in first..<first + count {
            let answer = await buy(engine, product, order)
            guard case .sold = answer else {
                Issue.record("product \(product), order \(order): \(answer)")
                break
            }
        }
        return engine.metrics.direct.count - before
    }

    private func isServed(_ fixture: EngineFixture, _ product: ProductID) throws -> Bool {
        try fixture.redis.call(["HEXISTS", "sg:{\(product)}:meta", "stamp"]).hasPrefix(":1")
    }

    private static let keys = ["meta", "pending", "owed", "marks", "marker", "stock"]

    @Test(arguments: keys)
    func aKeyOfAnotherTypeHarmsItsProductAlone(_ key: String) async throws {
        try await withFixture { fixture in
            let bad = try await fixture.addProduct(1, stock: 1000)
            let good = try await fixture.addProduct(2, stock: 1000)
            let events = Events()
            let engine = try await fixture.startEngine {
                $0.auditInterval = .seconds(600)
            } onEvent: {
                events.append($0)
            }
            #expect(await directOf(3, engine, bad, from: 1) == 0)
            // In one step: a settle may be under way, and would make the key again in between.
            let spoil = "redis.call('DEL', KEYS[1]) return redis.call('RPUSH', KEYS[1], 'somebody')"
            _ = try fixture.redis.call(["EVAL", spoil, "1", "sg:{1}:\(key)"])
            // An increase that Redis is told of late is what touches the deltas; an install does, too.
            if key == "owed" { #expect(await engine.resync(bad).hasSucceeded) }
            for round in Int64(1)...20 {
                _ = await directOf(1, engine, bad, from: round * 10)
                #expect(await directOf(1, engine, good, from: round * 10) == 0)
            }
            #expect(engine.breaker.snapshot().state == .closed)
            #expect(engine.breaker.snapshot().failedCalls == 0)
            // It is mended: sold through Redis, and exact.
            #expect(try await eventually { try await fixture.isExact(bad, engine) && engine.directProductCount == 0 })
            #expect(try await eventually { await directOf(1, engine, bad, from: .random(in: 1000...1_000_000_000)) == 0 })
            #expect(try await fixture.books(good).stock == 980)
            let books = try await fixture.books(bad)
            #expect(books.sold + books.stock == 1000)
            // Redis' own words, once.
            if ["meta", "pending", "marks", "stock"].contains(key) {
                #expect(events.leftDirect.map(\.product) == [bad])
                #expect(events.leftDirect.first?.why.contains("WRONGTYPE Operation against a key holding the wrong kind of value") == true)
            } else {
                #expect(events.leftDirect.isEmpty)
            }
            #expect(events.redisFailed.isEmpty && events.recoveryFailed.isEmpty && events.resyncFailed.isEmpty)
        }
    }

    @Test func keysOfAnotherTypeAreMendedByARecovery() async throws {
        try await withFixture { fixture in
            for id in Int64(1)...7 { _ = try await fixture.addProduct(id, stock: 100) }
            let events = Events()
            let engine = try await fixture.startEngine(onEvent: { events.append($0) })
            engine.breaker.transition(to: .forceOpen)
            for (index, key) in Self.keys.enumerated() {
                let name = "sg:{\(index + 1)}:\(key)"
                _ = try fixture.redis.call(["DEL", name])
                _ = try fixture.redis.call(["SET", name, "somebody's"])
            }
            engine.breaker.transition(to: .close)
            #expect(try await eventually { engine.breaker.state == .closed })
            for id in Int64(1)...7 {
                // Redis has an install before the engine has heard of it.
                #expect(
                    try await eventually { try await fixture.isExact(ProductID(id), engine) && engine.directProductCount == 0 },
                    "product \(id)"
                )
                // Marks are met by the first sale alone, which goes without Redis.
                var order: Int64 = 0
                let isGated = try await eventually {
                    order += 10
                    return await directOf(3, engine, ProductID(id), from: order) == 0
                }
                #expect(isGated && order <= (Self.keys.firstIndex(of: "marks") == Int(id) - 1 ? 100 : 10), "product \(id)")
            }
            #expect(events.recoveryFailed.isEmpty)
            #expect(engine.directProductCount == 0)
        }
    }

    /// Redis restarts while somebody's open transaction holds one product's row.
    @Test func aLockedRowIsLeftByTheRecovery() async throws {
        try await withFixture { fixture in
            let locked = try await fixture.addProduct(1, stock: 1000)
            let good = try await fixture.addProduct(2, stock: 1000)
            let events = Events()
            let engine = try await fixture.startEngine(onEvent: { events.append($0) })
            try await fixture.holdingTheRow(of: locked) { () async throws -> Void in
                fixture.redis.kill()
                var order: Int64 = 0
                #expect(
                    try await eventually {
                        order += 1
                        _ = await buy(engine, good, order)
                        return engine.breaker.state == .open
                    }
                )
                try fixture.redis.restart()
                let began = ContinuousClock.now
                #expect(
                    try await eventually {
                        order += 1
                        _ = await buy(engine, good, order)
                        return engine.breaker.state == .closed
                    }
                )
                // The row is held for much longer. What a recovery may take is the bound, since a busy machine is late.
                #expect(ContinuousClock.now - began < engine.configuration.breaker.recoveryTimeLimit)
                #expect(engine.directProductCount == 1)
                #expect(try !isServed(fixture, locked))
                #expect(await directOf(20, engine, good, from: 10_000) == 0)
                #expect(try await eventually { events.leftDirect.map(\.product) == [locked] })
                #expect(events.leftDirect.first?.why.contains("PostgreSQL: canceling statement due to lock timeout") == true)
                // It is tried again, and the same is not said again.
                let failed = engine.metrics.resyncsFailed.count
                #expect(try await eventually { engine.metrics.resyncsFailed.count > failed + 3 })
                #expect(events.leftDirect.count == 1)
                #expect(engine.directProductCount == 1)
                #expect(try !isServed(fixture, locked))
            }
            #expect(try await eventually { try await fixture.isExact(locked, engine) && engine.directProductCount == 0 })
            #expect(try await eventually { events.gatedAgain == [locked] })
            #expect(await directOf(5, engine, locked, from: 20_000) == 0)
            #expect(events.resyncFailed.isEmpty)
        }
    }

    /// Redis keeps what it held: neither this server nor another one may sell the product through it.
    @Test func whatARecoveryLeavesIsSoldByNoServerThroughRedis() async throws {
        try await withFixture { fixture in
            let locked = try await fixture.addProduct(1, stock: 5)
            let first = try await fixture.startEngine()
            let second = try await fixture.startEngine { $0.resyncWait = .milliseconds(100) }
            for order in Int64(1)...5 { _ = await buy(second, locked, order) }
            // Redis holds zero; the ledger gets ten more while the first server is away from Redis.
            first.breaker.transition(to: .forceOpen)
            #expect(try await eventually { try await fixture.isExact(locked, second) })
            try await fixture.sql("update product_stock set stock = stock + 10, fence = fence + 1 where product_id = 1")
            try await fixture.holdingTheRow(of: locked) { () async throws -> Void in
                first.breaker.transition(to: .close)
                #expect(try await eventually { first.breaker.state == .closed && first.directProductCount == 1 })
                #expect(try !isServed(fixture, locked))
                let refused = second.metrics.soldOutAtGate.count
                async let answers = (buy(first, locked, 100), buy(second, locked, 101))
                // Both wait for the row, or are told that it is locked; nobody is told *sold out*.
                for answer in await [answers.0, answers.1] {
                    switch answer {
                    case .sold, .unavailable: break
                    default: Issue.record("\(answer)")
                    }
                }
                #expect(second.metrics.soldOutAtGate.count == refused)
            }
            #expect(try await eventually { try await fixture.isExact(locked, first) && first.directProductCount == 0 })
            #expect(await directOf(3, second, locked, from: 200) == 0)
        }
    }

    /// A row that no statement can raise fails alone.
    @Test func aBadRowFailsAlone() async throws {
        try await withFixture { fixture in
            for id in Int64(1)...40 { _ = try await fixture.addProduct(id, stock: 10) }
            try await fixture.sql("update product_stock set fence = 9223372036854775807 where product_id = 17")
            let events = Events()
            let engine = try await fixture.startEngine(onEvent: { events.append($0) })
            #expect(try await eventually { engine.breaker.state == .closed })
            #expect(engine.directProductCount == 1)
            #expect(try await eventually { events.leftDirect.map(\.product) == [ProductID(17)] })
            #expect(events.leftDirect.first?.why == "PostgreSQL: bigint out of range")
            for id in Int64(1)...40 where id != 17 { #expect(await directOf(1, engine, ProductID(id), from: 1) == 0) }
        }
    }

    /// More products than the recovery has time for.
    @Test func aLongRecoveryGoesOnWhereItWas() async throws {
        try await withFixture { fixture in
            let count: Int64 = 8_000
            try await fixture.addProducts(count, stock: 100)
            let events = Events()
            let breaker = try CircuitBreakerConfiguration { values in
                values.window = .time(seconds: 2)
                values.minimumNumberOfCalls = 5
                values.waitInOpen = .constant(.milliseconds(100))
                values.movesToHalfOpenByItself = true
                values.permittedCallsInHalfOpen = 1
                values.maximumTimeInHalfOpen = .seconds(600)
                values.recoveryTimeLimit = .milliseconds(400)
                values.healthCheckTimeLimit = .seconds(10)
            }
            let engine = try await fixture.startEngine {
                $0.breaker = breaker
                $0.resyncChunk = 64
                $0.backgroundTimeout = .seconds(5)
                $0.redis.commandTimeout = .seconds(5)
                $0.sweepInterval = .seconds(600)
                $0.auditInterval = .seconds(600)
                $0.gatedRefresh = .seconds(600)
            } onEvent: {
                events.append($0)
            }
            #expect(try await eventually(within: .seconds(180)) { engine.breaker.state == .closed && engine.directProductCount == 0 })
            // What was heard of while it started is over when no resync ends any more, of any outcome, and no fence moves.
            func ended() -> UInt64 {
                engine.metrics.resyncs.count + engine.metrics.resyncsNotNeeded.count + engine.metrics.resyncsFailed.count
            }
            var before = try await fixture.fences()
            var resyncs = ended()
            #expect(
                try await eventually(within: .seconds(180)) {
                    try await Task.sleep(for: .seconds(1))
                    let now = (try await fixture.fences(), ended())
                    let isQuiet = now == (before, resyncs)
                    (before, resyncs) = now
                    return isQuiet
                }
            )
            engine.breaker.transition(to: .forceOpen)
            let hot = ProductID(count - 3)
            #expect(await directOf(20, engine, hot, from: 1) == 20)
            let passed = events.recovered.count
            // An attempt that is not wanted any more in its midst: the next one goes on with what is left.
            let installed = engine.metrics.resyncs.count
            engine.breaker.transition(to: .close)
            #expect(try await eventually { engine.metrics.resyncs.count >= installed + 200 })
            engine.breaker.transition(to: .forceOpen)
            engine.breaker.transition(to: .close)
            #expect(try await eventually(within: .seconds(180)) { events.recovered.count > passed })
            #expect(try isServed(fixture, hot))
            // Not all of it was done at once: the rest was left, or earlier attempts had run out of their time.
            #expect(events.recovered.last.map { $0.direct > 0 } == true || !events.recoveryFailed.isEmpty)
            #expect(try await eventually { engine.breaker.state == .closed })
            #expect(await directOf(3, engine, hot, from: 100) == 0)
            #expect(try await eventually(within: .seconds(180)) { engine.directProductCount == 0 })
            let after = try await fixture.fences()
            let raised = after.filter { $0.key != hot && $0.value != (before[$0.key] ?? 0) + 1 }
            #expect(raised.isEmpty, "\(raised.count) fences were not raised exactly once, such as \(raised.first.map { "\($0)" } ?? "")")
            for id in [1, 2, count / 2, count] { #expect(try await fixture.isExact(ProductID(id), engine)) }
        }
    }

    @Test func aHealthyStartHasNoTrouble() async throws {
        try await withFixture { fixture in
            for id in Int64(1)...20 { _ = try await fixture.addProduct(id, stock: 10) }
            let events = Events()
            let engine = try await fixture.startEngine(onEvent: { events.append($0) })
            for id in Int64(1)...20 { #expect(await directOf(2, engine, ProductID(id), from: 1) == 0) }
            for id in Int64(1)...20 { #expect(try await eventually { try await fixture.isExact(ProductID(id), engine) }) }
            #expect(try await eventually { events.recovered.map(\.products) == [20] })
            #expect(events.resyncFailed.isEmpty && events.redisFailed.isEmpty && events.recoveryFailed.isEmpty && events.leftDirect.isEmpty)
        }
    }

    /// Redis refuses every write: that is Redis' trouble, in Redis' words, once.
    @Test func redisSaysWhyItFails() async throws {
        try await withFixture { fixture in
            let product = try await fixture.addProduct(1, stock: 1000)
            let events = Events()
            let engine = try await fixture.startEngine(onEvent: { events.append($0) })
            _ = try fixture.redis.call(["CONFIG", "SET", "maxmemory", "1"])
            var order: Int64 = 0
            #expect(
                try await eventually {
                    order += 1
                    _ = await buy(engine, product, order)
                    return engine.breaker.state == .open && !events.recoveryFailed.isEmpty
                }
            )
            let words = "OOM command not allowed when used memory > 'maxmemory'."
            #expect(events.redisFailed.filter { $0.hasPrefix("Redis: \(words)") }.count == 1, "\(events.redisFailed)")
            #expect(events.recoveryFailed.contains { $0.hasPrefix("Redis: \(words)") }, "\(events.recoveryFailed)")
            #expect(events.recoveryFailed.count <= 2)
            #expect(events.leftDirect.isEmpty && engine.directProductCount == 0)
            _ = try fixture.redis.call(["CONFIG", "SET", "maxmemory", "0"])
            #expect(
                try await eventually {
                    order += 1
                    _ = await buy(engine, product, order)
                    return engine.breaker.state == .closed
                }
            )
            #expect(try await eventually { try await fixture.isExact(product, engine) })
        }
    }
}
