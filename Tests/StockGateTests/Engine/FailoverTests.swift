import Eventually
import PostgresClient
import PrivateServers
import StockGate
import Synchronization
import Testing

/// The ledger's primary dies, and a standby takes over that has everything, or lacks the last commits.
@Suite(.serialized, .timeLimit(.minutes(6)))
struct FailoverTests {
    /// An engine's servers, with a standby of its ledger.
    private struct Pair {
        let fixture: EngineFixture
        let standby: PrivatePostgres
        let admin: PostgresConnection
        let second: PostgresConnection

        var configuration: PostgresConfiguration {
            get throws {
                var configuration = try PostgresConfiguration(
                    url: "postgresql://postgres@127.0.0.1:\(fixture.postgres.port),127.0.0.1:\(standby.port)/postgres"
                )
                configuration.maximumBackoff = .milliseconds(100)
                return configuration
            }
        }

        func waitUntilStandbyHasAll() async throws {
            let lsn = try await admin.query("select pg_current_wal_flush_lsn()::text").one().decode(0, as: String.self)
            let has = "select coalesce(pg_last_wal_replay_lsn() >= $1::pg_lsn, false)"
            #expect(try await eventually { try await second.query(has, [.text(lsn)]).one().decode(0, as: Bool.self) })
        }

        func setSynchronous() async throws {
            try await admin.execute(script: "alter system set synchronous_standby_names = 'second'")
            _ = try await admin.query("select pg_reload_conf()")
            let isSynchronous = try await eventually {
                try await admin.query("select from pg_stat_replication where sync_state = 'sync'").count == 1
            }
            #expect(isSynchronous)
            // Commits wait once the checkpointer has read the setting, which it has done when it has taken a checkpoint.
            try await admin.execute(script: "checkpoint")
        }

        /// From now on the standby gets nothing.
        func endReplication() async throws {
            try await second.execute(script: "alter system set primary_conninfo = ''")
            _ = try await second.query("select pg_reload_conf()")
            #expect(try await eventually { try await admin.query("select from pg_stat_replication").isEmpty })
        }

        func failOver() async throws {
            fixture.postgres.kill()
            _ = try await second.query("select pg_promote(true, 60)", timeout: .seconds(90))
        }

        var waiting: Int {
            get async throws { try await admin.query("select from pg_stat_activity where wait_event = 'SyncRep'").count }
        }
    }

    private func withPair(_ body: (Pair) async throws -> Void) async throws {
        let fixture = try await EngineFixture()
        let standby = try PrivatePostgres.startStandby(of: fixture.postgres, name: "second")
        let result: Result<Void, any Error>
        do {
            let pair = Pair(
                fixture: fixture,
                standby: standby,
                admin: try PostgresConnection(configuration: try PostgresConfiguration.patient(fixture.postgres.url)),
                second: try PostgresConnection(configuration: try PostgresConfiguration.patient(standby.url))
            )
            result = .success(try await body(pair))
        } catch { result = .failure(error) }
        await fixture.stop()
        standby.stop()
        try result.get()
    }

    private func quiet(_ configuration: inout EngineConfiguration) {
        configuration.auditInterval = .seconds(3600)
        configuration.sweepInterval = .seconds(3600)
    }

    private func ask(_ engine: StockEngine, _ product: ProductID, _ order: Int64, isRepeat: Bool = false) async -> DecreaseAnswer {
        await engine.decrease(DecreaseRequest(product: product, key: "DEC-\(order)", orderID: order, quantity: 1, isRepeat: isRepeat))
    }

    /// Thirty sales and twenty fences are lost. Nobody looks for that but the ledger's own sessions: the audit and the sweep never run.
    @Test func theStandbyLacksTheLastCommits() async throws {
        try await withPair { pair in
            let product = try await pair.fixture.addProduct(1, stock: 100)
            let moves = Mutex<[String]>([])
            let engine = try await pair.fixture.startEngine {
                quiet(&$0)
                if let postgres = try? pair.configuration { $0.ledger.postgres = postgres }
            } onEvent: { event in
                if case .ledgerMoved(let now, let before) = event { moves.withLock { $0.append("\(before) -> \(now)") } }
            }
            #expect(await Rush.run(engine, product, orders: 1..<21).sold.count == 20)
            try await pair.waitUntilStandbyHasAll()
            try await pair.endReplication()
            #expect(await Rush.run(engine, product, orders: 21..<51).sold.count == 30)
            for _ in 0..<20 { _ = await engine.resync(product) }
            let lost = try #require(try await engine.audit(product)).ledger
            #expect(lost.stock == 50)
            let began = ContinuousClock.now
            try await pair.failOver()
            let promoted = ContinuousClock.now
            let rush = await Rush.run(engine, product, orders: 100..<300)
            let sold = ContinuousClock.now
            // First attempts that came before a session had found the new primary were told *sold out* by Redis, which held fifty units.
            #expect(rush.unknown.isEmpty)
            #expect(try await eventually { try await pair.fixture.isExact(product, engine) })
            let more = await Rush.run(engine, product, orders: 300..<500)
            #expect(rush.sold.count + more.sold.count == 80 && more.unknown.isEmpty)
            #expect(try await eventually { try await pair.fixture.isExact(product, engine) })
            #expect(engine.directProductCount == 0)
            let ledger = try #require(try await engine.audit(product)).ledger
            #expect(ledger.stock == 0 && ledger.sold - ledger.returned == 100)
            #expect(ledger.fence > lost.fence, "raised above what Redis held")
            #expect(engine.metrics.raisedAboveRedis.count >= 1)
            let said = moves.withLock { $0 }
            #expect(said.count == 1 && said.first?.contains("-> system") == true && said.first?.contains("timeline 2") == true, "\(said)")
            print("FAILOVER promoted after \(promoted - began), sold out \(sold - promoted) later")
        }
    }

    /// Redis says sold out, so that no buyer comes as far as the ledger, which has units again.
    @Test func unitsThatCameBackAreSoldThoughRedisSaysSoldOut() async throws {
        try await withPair { pair in
            let product = try await pair.fixture.addProduct(1, stock: 10)
            let engine = try await pair.fixture.startEngine {
                quiet(&$0)
                if let postgres = try? pair.configuration { $0.ledger.postgres = postgres }
            }
            #expect(try await eventually { try await pair.fixture.isExact(product, engine) })
            try await pair.waitUntilStandbyHasAll()
            try await pair.endReplication()
            #expect(await Rush.run(engine, product, orders: 1..<30).sold.count == 10)
            try await pair.failOver()
            #expect(try await eventually { try await pair.fixture.isExact(product, engine) && engine.metrics.ledgerMoves.count == 1 })
            #expect(await Rush.run(engine, product, orders: 100..<130).sold.count == 10)
        }
    }

    /// What the standby has not got is not told as sold, and is sold once when it comes back.
    @Test func aStandbyThatStopsKeepsAnswersBack() async throws {
        try await withPair { pair in
            let product = try await pair.fixture.addProduct(1, stock: 10)
            try await pair.setSynchronous()
            let engine = try await pair.fixture.startEngine {
                quiet(&$0)
                $0.answerWithin = .seconds(2)
                if let postgres = try? pair.configuration { $0.ledger.postgres = postgres }
            }
            #expect(await ask(engine, product, 1) == .sold(remaining: 9, replayed: false))
            pair.standby.pause()
            for order in Int64(2)...3 {
                guard case .unavailable = await ask(engine, product, order) else {
                    Issue.record("order \(order) was told what the standby lacks")
                    continue
                }
            }
            pair.standby.resume()
            for order in Int64(2)...3 {
                let isSold = try await eventually {
                    if case .sold = await ask(engine, product, order, isRepeat: true) { true } else { false }
                }
                #expect(isSold)
            }
            #expect(try await pair.fixture.books(product) == (3, 7, 3))
        }
    }

    @Test func aCancelledWaitIsUnknownAndTheKeyIsSoldOnce() async throws {
        try await withPair { pair in
            let product = try await pair.fixture.addProduct(1, stock: 10)
            try await pair.setSynchronous()
            let engine = try await pair.fixture.startEngine {
                quiet(&$0)
                if let postgres = try? pair.configuration { $0.ledger.postgres = postgres }
            }
            #expect(await ask(engine, product, 1) == .sold(remaining: 9, replayed: false))
            pair.standby.pause()
            async let answer = ask(engine, product, 2)
            #expect(try await eventually { try await pair.waiting > 0 })
            _ = try await pair.admin.query("select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'")
            #expect(try await eventually { engine.metrics.unknownCommits.count > 0 })
            let plain = try await pair.admin.query("select from stock_ledger where request_id = 'DEC-2'")
            #expect(plain.count == 1, "it can be seen")
            // A reader is not told of it; neither is the buyer.
            await #expect(throws: PostgresError.self) { try await engine.ledger.entry(forKey: "DEC-2", reader: true) }
            pair.standby.resume()
            #expect(await answer == .sold(remaining: 8, replayed: false))
            #expect(try await engine.ledger.entry(forKey: "DEC-2", reader: true)?.quantity == 1)
            #expect(try await pair.fixture.books(product) == (2, 8, 2))
            #expect(try await eventually { try await pair.fixture.isExact(product, engine) })
        }
    }

    /// With a synchronous standby nothing that was told is lost, and sales go on at the second host.
    @Test func theStandbyTakesOverAndNothingIsLost() async throws {
        try await withPair { pair in
            let product = try await pair.fixture.addProduct(1, stock: 2000)
            try await pair.setSynchronous()
            let engine = try await pair.fixture.startEngine {
                if let postgres = try? pair.configuration { $0.ledger.postgres = postgres }
            }
            let progress = Atomic<Int64>(0)
            async let sale = Rush.run(engine, product, orders: 1..<2201) { order in
                progress.store(max(order, progress.load(ordering: .relaxed)), ordering: .relaxed)
            }
            #expect(try await eventually { progress.load(ordering: .relaxed) > 400 })
            let began = ContinuousClock.now
            // The promoted server has the primary's setting; its own standby does not exist.
            try await pair.second.execute(script: "alter system set synchronous_standby_names = ''")
            try await pair.failOver()
            let promoted = ContinuousClock.now
            let rush = await sale
            #expect(rush.sold.count == 2000 && rush.unknown.isEmpty && Set(rush.sold).count == 2000)
            #expect(try await eventually { try await pair.fixture.isExact(product, engine) })
            let ledger = try #require(try await engine.audit(product)).ledger
            #expect(ledger.stock == 0 && ledger.sold - ledger.returned == 2000)
            for key in rush.sold.prefix(300) { #expect(try await engine.ledger.entry(forKey: key) != nil, "\(key) was told and is lost") }
            print("FAILOVER without loss: promoted after \(promoted - began), all sold \(ContinuousClock.now - promoted) later")
        }
    }

    /// A dump that is three hundred orders and twenty fences old is restored while Redis runs and buyers come.
    @Test func aBackupIsRestoredUnderARunningRedis() async throws {
        let fixture = try await EngineFixture(database: "shop")
        let result: Result<Void, any Error>
        do {
            let product = try await fixture.addProduct(1, stock: 1000)
            let other = try await fixture.addProduct(2, stock: 5)
            let engine = try await fixture.startEngine(quiet)
            #expect(await Rush.run(engine, product, orders: 1..<101).sold.count == 100)
            #expect(try await eventually { try await fixture.isExact(product, engine) })
            let old = try #require(try await engine.audit(product)).ledger
            let file = try fixture.postgres.dump("shop")
            #expect(await Rush.run(engine, product, orders: 101..<401).sold.count == 300)
            for _ in 0..<20 { _ = await engine.resync(product) }
            let lost = try #require(try await engine.audit(product)).ledger
            #expect(lost.fence.rawValue >= old.fence.rawValue + 20 && lost.stock == 600)
            async let meanwhile = Rush.run(engine, product, orders: 1000..<1200)
            try fixture.postgres.restore("shop", from: file)
            // The command of an operator: an engine of its own that serves nobody.
            let check = try await fixture.makeEngine(quiet)
            let (products, findings) = try await check.restoreCheck()
            #expect(products == 2)
            #expect(findings.allSatisfy { $0.isMended }, "\(findings)")
            await check.shutdown()
            #expect((await meanwhile).unknown.isEmpty)
            #expect(await Rush.run(engine, product, orders: 2000..<3200).unknown.isEmpty)
            #expect(try await eventually { try await fixture.isExact(product, engine) })
            let ledger = try #require(try await engine.audit(product)).ledger
            #expect(ledger.stock == 0 && ledger.sold - ledger.returned == 1000)
            #expect(ledger.fence > lost.fence)
            #expect(try await fixture.books(product) == (1000, 0, 1000))
            #expect(await Rush.run(engine, other, orders: 5000..<5010).sold.count == 5)
            result = .success(())
        } catch { result = .failure(error) }
        await fixture.stop()
        try result.get()
    }

    /// What the check says of each kind of difference.
    @Test func theCheckNamesWhatItFinds() async throws {
        let fixture = try await EngineFixture()
        let result: Result<Void, any Error>
        do {
            try await fixture.addProducts(5, stock: 10)
            let engine = try await fixture.startEngine(quiet)
            for id in Int64(1)...5 { #expect(try await eventually { try await fixture.isExact(ProductID(id), engine) }) }
            let check = try await fixture.makeEngine(quiet)
            #expect(try await check.restoreCheck().findings == [])
            _ = try fixture.redis.call(["HSET", "sg:{1}:meta", "fence", "5000"])
            _ = try fixture.redis.call(["INCRBY", "sg:{2}:stock", "3"])
            _ = try fixture.redis.call(["HSET", "sg:{3}:meta", "ledger", "1/other/public"])
            _ = try fixture.redis.call(["DEL", "sg:{4}:meta"])
            _ = try fixture.redis.call(["SET", "sg:{4}:meta", "of another type"])
            let (products, findings) = try await check.restoreCheck()
            #expect(products == 5)
            #expect(findings.map(\.product.rawValue) == [1, 2, 3, 4])
            guard findings.count == 4 else { return await fixture.stop() }
            #expect(findings[0].difference == .redisAhead && findings[0].redisFence?.rawValue == 5000)
            guard case .installed(let state) = findings[0].outcome else {
                Issue.record("not installed: \(findings[0])")
                return await fixture.stop()
            }
            #expect(state.fence.rawValue == 5001, "in one step")
            #expect(findings[1].difference == .other && findings[1].counter == 13)
            #expect(findings[2].difference == .foreign("1/other/public") && !findings[2].isMended)
            if case .unreadable = findings[3].difference {} else { Issue.record("\(findings[3])") }
            for id in [Int64(1), 2, 4] { #expect(try await fixture.isExact(ProductID(id), check), "\(id)") }
            #expect(try await check.restoreCheck().findings.map(\.product.rawValue) == [3])
            await check.shutdown()
            result = .success(())
        } catch { result = .failure(error) }
        await fixture.stop()
        try result.get()
    }
}
