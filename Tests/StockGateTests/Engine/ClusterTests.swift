import CircuitBreaker
import Eventually
import PrivateServers
import RedisClient
import StockGate
import Synchronization
import Testing

/// An engine over the masters of a cluster: what happens to one of them concerns its own products, and no others.
@Suite(.serialized, .timeLimit(.minutes(15)))
struct ClusterTests {
    private static let count: Int64 = 12

    private func name(_ node: PrivateRedis) -> String { "redisStock@127.0.0.1:\(node.tlsPort ?? node.port)" }

    /// Sets what an engine over this cluster needs, whatever the machine is busy with.
    /// - Parameter authority: of the certificates of nodes that speak TLS; nil for plain ones
    private func over(_ cluster: PrivateCluster, quiet: Bool, authority: String? = nil) throws -> (inout EngineConfiguration) -> Void {
        let secure = authority.map { "rediss+cluster://localhost:\(cluster.masters[0].tlsPort ?? 0)?sslrootcert=\($0)" }
        let redis = try RedisConfiguration(url: secure ?? cluster.url)
        guard case .cluster(var seeds) = redis.address else { throw NoCluster() }
        seeds.checkInterval = .seconds(1)
        seeds.answerTimeout = .seconds(5)
        seeds.searchTimeout = .seconds(20)
        let found = seeds
        return { configuration in
            configuration.redis.address = .cluster(found)
            configuration.redis.tls = redis.tls
            configuration.mapWait = .seconds(60)
            // A busy machine must not make a reservation look forgotten.
            configuration.pendingBound = .seconds(30)
            guard quiet else { return }
            configuration.auditInterval = .seconds(3600)
            configuration.sweepInterval = .seconds(3600)
        }
    }

    private struct NoCluster: Error {}

    /// Runs `body` with an engine over a cluster, and products 1 to `count` with this stock.
    /// - Parameters:
    ///   - tls: whether the nodes are spoken to by TLS
    ///   - quiet: whether neither audit nor sweep comes by
    private func with(
        replicas: Bool = false,
        tls: Bool = false,
        stock: Int64,
        database: String = "postgres",
        quiet: Bool = false,
        _ body: (EngineFixture, PrivateCluster, StockEngine, Happenings) async throws -> Void
    ) async throws {
        let certificates = tls ? try PrivateCertificates() : nil
        let port = try certificates.map { PrivateCertificates.Port(try $0.sign(), authority: $0.authority) }
        let cluster = try await PrivateCluster.start(hasReplicas: replicas, tls: port)
        defer { cluster.stop() }
        let change = try over(cluster, quiet: quiet, authority: certificates?.authority)
        try await withFixture(database: database) { fixture in
            try await fixture.addProducts(Self.count, stock: stock)
            let told = Happenings()
            let engine = try await fixture.startEngine(change, onEvent: { told.add($0) })
            do {
                try #require(try await eventually { engine.breakers.count == 3 && engine.breakers.allSatisfy { $0.state == .closed } })
                try await body(fixture, cluster, engine, told)
            } catch {
                Issue.record("\(error); \(told.words.suffix(40))")
            }
        }
    }

    /// The place of the master that has a product's slot at the start.
    private func home(_ product: Int64, _ cluster: PrivateCluster) -> Int {
        let slot = Int(HashSlot(key: String(product)).rawValue)
        return cluster.masters.indices.first { cluster.slots(of: $0).contains(slot) } ?? 0
    }

    private func products(of master: Int, _ cluster: PrivateCluster) -> [Int64] { (1...Self.count).filter { home($0, cluster) == master } }

    private func sell(_ engine: StockEngine, _ products: some Sequence<Int64>, orders: Int64, from first: Int64) async -> [Int64: Rush] {
        await withTaskGroup(of: (Int64, Rush).self) { group in
            for product in products {
                // Each product has keys of its own.
                let numbers = product * 1_000_000 + first..<product * 1_000_000 + first + orders
                group.addTask { (product, await Rush.run(engine, ProductID(product), orders: numbers, concurrency: 8)) }
            }
            return await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
        }
    }

    private func isExact(_ fixture: EngineFixture, _ engine: StockEngine, _ products: some Sequence<Int64>) async throws -> Bool {
        for product in products {
            guard try await fixture.isExact(ProductID(product), engine) else { return false }
        }
        return true
    }

    @Test(arguments: [false, true]) func eachProductIsSoldThroughItsMaster(tls: Bool) async throws {
        try await with(tls: tls, stock: 40) { fixture, cluster, engine, _ in
            #expect(Set(engine.breakers.map(\.name)) == Set(cluster.masters.map(name)))
            for master in 0..<3 { #expect(!products(of: master, cluster).isEmpty) }
            #expect(try await eventually { try await isExact(fixture, engine, 1...Self.count) })
            let direct = engine.metrics.direct.count
            let sold = await sell(engine, 1...Self.count, orders: 50, from: 1)
            for product in 1...Self.count {
                #expect(sold[product]?.sold.count == 40 && sold[product]?.refused == 10, "product \(product)")
                let books = try await fixture.books(ProductID(product))
                #expect(books.sold == 40 && books.stock == 0 && books.rows == 40)
                let node = cluster.masters[home(product, cluster)]
                #expect(try node.call(["EXISTS", "sg:{\(product)}:stock"]).hasPrefix(":1"), "product \(product)")
                #expect(engine.breaker(of: ProductID(product))?.name == name(node))
            }
            #expect(engine.metrics.reserves.count > 0 && engine.metrics.direct.count == direct)
            #expect(try await eventually { try await isExact(fixture, engine, 1...Self.count) })
            #expect(engine.redisClusterSnapshot()?.uncoveredSlots == 0 && engine.metrics.moved.count == 0)
        }
    }

    @Test func aMasterThatIsDownSendsItsOwnProductsToTheLedgerAndNoOthers() async throws {
        try await with(stock: 1000) { fixture, cluster, engine, _ in
            let (lost, kept) = (products(of: 0, cluster), products(of: 1, cluster) + products(of: 2, cluster))
            let breakers = try cluster.masters.map { node in try #require(engine.breakers.first { $0.name == name(node) }) }
            cluster.masters[0].kill()
            var sold = await sell(engine, lost, orders: 60, from: 1)
            #expect(try await eventually { breakers[0].state == .open || breakers[0].state == .halfOpen })
            let (direct, reserves) = (engine.metrics.direct.count, engine.metrics.reserves.count)
            let others = await sell(engine, kept, orders: 60, from: 1)
            #expect(engine.metrics.direct.count == direct, "products of the other masters are sold through them")
            #expect(engine.metrics.reserves.count >= reserves + 60 * UInt64(kept.count))
            #expect(breakers[1].state == .closed && breakers[2].state == .closed)
            sold.merge(others) { $1 }
            for product in 1...Self.count {
                #expect(sold[product]?.sold.count == 60, "product \(product)")
                #expect(try await fixture.books(ProductID(product)).stock == 940)
            }
            // It comes back, empty: its recovery installs its products, and those of the others hear nothing of it.
            let before = try await fixture.fences()
            try cluster.masters[0].restart()
            #expect(try await eventually { breakers[0].state == .closed })
            #expect(try await eventually { try await isExact(fixture, engine, 1...Self.count) })
            let after = try await fixture.fences()
            for product in kept { #expect(after[ProductID(product)] == before[ProductID(product)], "product \(product) was not resynced") }
            for product in lost { #expect((after[ProductID(product)] ?? 0) > (before[ProductID(product)] ?? 0), "product \(product)") }
            #expect(Set(engine.breakers.map(\.name)) == Set(cluster.masters.map(name)))
        }
    }

    @Test func theReplicaOfALostMasterTakesItsProducts() async throws {
        try await with(replicas: true, stock: 100_000) { fixture, cluster, engine, told in
            let lost = products(of: 1, cluster)
            let selling = Selling { first in await sell(engine, 1...Self.count, orders: 20, from: first) }
            #expect(try await eventually { engine.metrics.reserves.count > 100 })
            do {
                try await cluster.failOver(1)
            } catch {
                _ = await selling.end()
                throw error
            }
            let expected = Set([cluster.masters[0], cluster.replicas[1], cluster.masters[2]].map(name))
            #expect(try await eventually { Set(engine.breakers.map(\.name)) == expected })
            #expect(try await eventually { engine.breakers.allSatisfy { $0.state == .closed } })
            let sold = await selling.end()
            for product in 1...Self.count {
                let books = try await fixture.books(ProductID(product))
                #expect(sold[product]?.unknown.isEmpty == true)
                #expect(Int64(sold[product]?.sold.count ?? 0) == books.sold && books.stock == 100_000 - books.sold, "product \(product)")
            }
            #expect(try await eventually { try await isExact(fixture, engine, 1...Self.count) })
            #expect(engine.metrics.moved.count == UInt64(lost.count), "\(told.words)")
            #expect(engine.directProductCount == 0)
            for product in lost { #expect(engine.breaker(of: ProductID(product))?.name == name(cluster.replicas[1])) }
        }
    }

    @Test func slotsMoveUnderASale() async throws {
        try await with(stock: 100_000) { fixture, cluster, engine, told in
            let resyncs = engine.metrics.resyncs.count
            let selling = Selling { first in await sell(engine, 1...Self.count, orders: 20, from: first) }
            var moved: [Int64] = []
            do {
                #expect(try await eventually { engine.metrics.reserves.count > 100 })
                for product in Int64(1)...6 {
                    let slot = Int(HashSlot(key: String(product)).rawValue)
                    let source = home(product, cluster)
                    let (from, to) = (cluster.masters[source], cluster.masters[(source + 1) % 3])
                    try cluster.beginMove(of: slot, from: from, to: to)
                    let before = engine.metrics.sold.count
                    // It is sold while its slot is on its way.
                    #expect(try await eventually { engine.metrics.sold.count > before + 20 })
                    try cluster.moveKeys(of: slot, from: from, to: to)
                    try cluster.endMove(of: slot, from: from, to: to)
                    moved.append(product)
                    #expect(try await eventually { engine.breaker(of: ProductID(product))?.name == name(to) })
                    #expect(try await eventually { try await engine.audit(ProductID(product))?.gate?.isLoaded == true })
                }
            } catch {
                _ = await selling.end()
                throw error
            }
            let sold = await selling.end()
            #expect(engine.breakers.allSatisfy { $0.state == .closed }, "a redirection is no trouble of Redis: \(told.words)")
            for product in 1...Self.count {
                let books = try await fixture.books(ProductID(product))
                #expect(sold[product]?.unknown.isEmpty == true)
                #expect(Int64(sold[product]?.sold.count ?? 0) == books.sold && books.stock == 100_000 - books.sold, "product \(product)")
            }
            #expect(try await eventually { try await isExact(fixture, engine, 1...Self.count) })
            #expect(engine.metrics.moved.count == UInt64(moved.count) && engine.directProductCount == 0)
            let units = sold.values.reduce(0) { $0 + $1.sold.count }
            print(
                "CLUSTER \(moved.count) slots moved under a sale of \(units) units: \(engine.metrics.resyncs.count - resyncs) resyncs, "
                    + "\(engine.metrics.direct.count) units sold without Redis, books exact"
            )
        }
    }

    @Test func aMasterIsDemotedByHand() async throws {
        try await with(replicas: true, stock: 1000) { fixture, cluster, engine, told in
            var sold = await sell(engine, 1...Self.count, orders: 20, from: 1)
            #expect(try cluster.replicas[2].call(["CLUSTER", "FAILOVER"]).hasPrefix("+OK"))
            let more = await sell(engine, 1...Self.count, orders: 20, from: 21)
            try await cluster.untilFailedOver(2)
            let expected = Set([cluster.masters[0], cluster.masters[1], cluster.replicas[2]].map(name))
            #expect(try await eventually { Set(engine.breakers.map(\.name)) == expected }, "\(engine.breakers.map(\.name))")
            #expect(try await eventually { engine.breakers.allSatisfy { $0.state == .closed } })
            let last = await sell(engine, 1...Self.count, orders: 20, from: 41)
            for product in 1...Self.count {
                sold[product]?.sold += (more[product]?.sold ?? []) + (last[product]?.sold ?? [])
                #expect(sold[product]?.sold.count == 60, "product \(product)")
                #expect(try await fixture.books(ProductID(product)).stock == 940)
            }
            #expect(try await eventually { try await isExact(fixture, engine, 1...Self.count) })
            for product in products(of: 2, cluster) {
                #expect(engine.breaker(of: ProductID(product))?.name == name(cluster.replicas[2]), "\(told.words)")
            }
        }
    }

    /// The ledger's history is one for all masters: each product is installed anew at its own, far above what is lost.
    @Test func aLedgerThatGoesBackIsInstalledAnewAtEveryMaster() async throws {
        try await with(stock: 100, database: "shop", quiet: true) { fixture, cluster, engine, told in
            for master in 0..<3 { #expect(!products(of: master, cluster).isEmpty) }
            #expect(try await eventually { try await isExact(fixture, engine, 1...Self.count) })
            let dump = try fixture.postgres.dump("shop")
            let gone = await sell(engine, 1...Self.count, orders: 30, from: 1)
            for product in 1...Self.count {
                #expect(gone[product]?.sold.count == 30, "product \(product)")
                for _ in 0..<3 { _ = await engine.resync(ProductID(product)) }
            }
            let lost = try await fixture.fences()
            try fixture.postgres.restore("shop", from: dump)
            #expect(try await eventually { engine.metrics.ledgerMoves.count == 1 }, "\(told.words.suffix(20))")
            let isInstalled = try await eventually {
                let isAll = try await isExact(fixture, engine, 1...Self.count)
                return isAll && engine.directProductCount == 0
            }
            #expect(isInstalled, "\(told.words.suffix(20))")
            let fences = try await fixture.fences()
            for product in 1...Self.count {
                let (fence, before) = (fences[ProductID(product)] ?? 0, lost[ProductID(product)] ?? 0)
                #expect(fence >= before + Resync.leap, "product \(product): \(before) -> \(fence)")
            }
            let direct = engine.metrics.direct.count
            let sold = await sell(engine, 1...Self.count, orders: 110, from: 1001)
            for product in 1...Self.count {
                #expect(sold[product]?.sold.count == 100 && sold[product]?.refused == 10, "product \(product)")
                let books = try await fixture.books(ProductID(product))
                #expect(books.sold == 100 && books.stock == 0 && books.rows == 100, "product \(product)")
            }
            #expect(engine.metrics.direct.count == direct && engine.metrics.ledgerMoves.count == 1)
            #expect(engine.breakers.allSatisfy { $0.state == .closed })
        }
    }

    /// What an operator runs behind a restore: each product is compared with its own master, and one that is down leaves its own products alone.
    @Test func theCheckComparesEachProductWithItsOwnMaster() async throws {
        try await with(stock: 10, quiet: true) { fixture, cluster, engine, _ in
            #expect(try await eventually { try await isExact(fixture, engine, 1...Self.count) })
            let check = try await fixture.makeEngine(try over(cluster, quiet: true))
            do {
                let (count, none) = try await check.restoreCheck()
                #expect(count == Int(Self.count) && none == [])
                let changed = try (0..<3).map { try #require(products(of: $0, cluster).first) }
                for (master, product) in changed.enumerated() {
                    _ = try cluster.masters[master].call(["HSET", "sg:{\(product)}:meta", "fence", String(5000 + master)])
                }
                let findings = try await check.restoreCheck().findings
                #expect(findings.map(\.product.rawValue) == changed.sorted())
                #expect(findings.allSatisfy { $0.isMended && $0.difference == .redisAhead }, "\(findings)")
                let fences = try await fixture.fences()
                for (master, product) in changed.enumerated() { #expect(fences[ProductID(product)] == Int64(5001 + master), "in one step") }
                #expect(try await isExact(fixture, check, 1...Self.count))
                // One is down.
                cluster.masters[0].kill()
                let kept = try #require(products(of: 1, cluster).last)
                _ = try cluster.masters[1].call(["INCRBY", "sg:{\(kept)}:stock", "3"])
                let lost = products(of: 0, cluster)
                let left = try await check.restoreCheck().findings
                #expect(left.map(\.product.rawValue) == (lost + [kept]).sorted(), "\(left)")
                for finding in left where finding.product.rawValue != kept {
                    if case .unreadable = finding.difference {} else { Issue.record("\(finding)") }
                    #expect(!finding.isMended && finding.failure != nil, "\(finding)")
                }
                #expect(left.filter(\.isMended).map(\.product.rawValue) == [kept])
                await check.shutdown()
            } catch {
                await check.shutdown()
                throw error
            }
        }
    }
}

/// What an engine has told.
private final class Happenings: Sendable {
    private let events = Mutex<[EngineEvent]>([])

    func add(_ event: EngineEvent) { events.withLock { $0.append(event) } }

    var words: [String] { events.withLock { $0.map { String(describing: $0) } } }
}

/// Rounds of buyers, one after the other, until it is ended.
private final class Selling: Sendable {
    private let isOver = Mutex(false)
    private let task = Mutex<Task<[Int64: Rush], Never>?>(nil)

    init(_ round: @escaping @Sendable (_ first: Int64) async -> [Int64: Rush]) {
        task.withLock { task in
            task = Task {
                var all: [Int64: Rush] = [:]
                var first: Int64 = 1
                repeat {
                    for (product, rush) in await round(first) {
                        all[product, default: Rush()].sold += rush.sold
                        all[product]?.unknown += rush.unknown
                    }
                    first += 20
                } while !self.isOver.withLock { $0 }
                return all
            }
        }
    }

    /// What was sold, by product.
    func end() async -> [Int64: Rush] {
        isOver.withLock { $0 = true }
        return await task.withLock { $0 }?.value ?? [:]
    }
}
