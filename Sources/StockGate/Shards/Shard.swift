// What belongs to one master of Redis, and how its parts are put together.
//
// Who suffers: what happens to one master concerns its shard alone. Its breaker, its recovery, its resyncs and its background work wait for no other shard's.
// Each part knows only parts that were made before it. There is one circle: the breaker runs the recovery, the recovery works on the gates, and the gates ask
// the breaker. Therefore the breaker gets a latch, and waits there for the recovery to be made. `shutdown` closes the latch, which breaks the circle.

import CircuitBreaker
import NIOCore
import RedisClient

/// What the parts of all shards share.
struct ShardCommons: Sendable {
    let configuration: EngineConfiguration
    let times: EngineTimes
    let group: any EventLoopGroup
    let ledger: PostgresLedger
    let products: GatedProducts
    let inFlight: InFlight
    let events: EventLog
    let metrics: EngineMetrics
}

final class Shard: Sendable {
    /// Tells shards apart.
    struct ID: Hashable, Sendable {
        let rawValue: Int
    }

    let id: ID
    /// Prepares the connections of the master's client.
    let connections: GateConnections
    let breaker: CircuitBreaker
    let redis: RedisClient
    /// The gate of each event loop, in the order in which the group names its loops.
    let loops: [RedisGate]
    let gates: RedisGates
    let resyncs: ResyncCoordinator
    let driver: ResyncDriver
    let recovery: Recovery
    let audit: Audit
    private let sweep: Sweep
    private let pruning: Pruning
    /// The latch through which the breaker gets the recovery.
    private let recoveryLatch: Latch<Recovery>
    private let ended = Latch<Void>()
    private let configuration: EngineConfiguration
    /// For how many of its intervals the sweep, or pruning, leaves a product alone at most.
    private static let intervalsOfRest = 6

    /// The one shard of an engine without a cluster.
    /// - Parameter client: makes the client, whose connections are prepared by what it gets.
    convenience init(_ commons: ShardCommons, client: (GateConnections) -> RedisClient) {
        self.init(
            ID(rawValue: 0),
            name: "redisStock",
            commons,
            commons.events,
            productsInACall: RedisGate.maximumProducts,
            tag: { "0" },
            saidOfSlots: { _ in },
            client: client
        )
    }

    /// The shard of a cluster's master. Nil if the cluster's map does not name it any more.
    convenience init?(_ id: ID, of master: RedisEndpoint, _ cluster: RedisCluster, _ commons: ShardCommons) {
        guard let client = cluster.client(of: master) else { return nil }
        self.init(
            id,
            name: "redisStock@\(master)",
            commons,
            commons.events.of(master: "\(master)"),
            productsInACall: 1,
            tag: {
                // A master without slots is not in the map.
                guard let map = cluster.map else { return "0" }
                return GateKeys.tagOfNoProduct { map[$0] == master } ?? "0"
            },
            saidOfSlots: { cluster.heard($0, from: master) },
            client: { _ in client }
        )
    }

    private init(
        _ id: ID,
        name: String,
        _ commons: ShardCommons,
        _ events: EventLog,
        productsInACall: Int,
        tag: @escaping @Sendable () -> String,
        saidOfSlots: @escaping @Sendable (RedisServerError) -> Void,
        client: (GateConnections) -> RedisClient
    ) {
        let (configuration, metrics) = (commons.configuration, commons.metrics)
        let products = ShardProducts(catalogue: commons.products, shard: id)
        let outage = Outage()
        let latch = Latch<Recovery>()
        let breaker = CircuitBreaker(
            name: name,
            configuration: configuration.breaker,
            startsInRecovery: true,
            recovery: { try await latch.value().run() },
            // Probes Redis while no buyer does. Without this check a Redis that is back would stay half open until enough buyers came, which can take all
            // night.
            healthCheck: { await (try? latch.value())?.isRedisAnswering() ?? false }
        )
        let resyncs = ResyncCoordinator(
            products: products,
            breaker: breaker,
            outage: outage,
            inFlight: commons.inFlight,
            group: commons.group,
            events: events,
            metrics: metrics,
            chunk: configuration.resyncChunk
        )
        let connections = GateConnections(events: events, tag: tag) { resyncs.connected(dataset: $0) }
        let redis = client(connections)
        let reports = GateReports(
            trouble: { events.redisFailed($0) },
            spoiled: { id, failure in if let product = products[id] { resyncs.spoiled(product, failure) } },
            elsewhere: { id in if let product = products[id] { resyncs.isElsewhere(product) } },
            saidOfSlots: saidOfSlots
        )
        loops = commons.group.makeIterator().map { loop in
            RedisGate(
                eventLoop: loop,
                client: redis,
                breaker: breaker,
                times: commons.times.gate,
                metrics: metrics,
                reports: reports,
                productsInACall: productsInACall
            )
        }
        let gates = RedisGates(loops)
        let driver = ResyncDriver(ledger: commons.ledger, gates: gates, products: products, metrics: metrics)
        let pruning = Pruning(
            products: products,
            gates: gates,
            redis: redis,
            tag: tag,
            breaker: breaker,
            events: events,
            metrics: metrics,
            chunk: configuration.resyncChunk,
            longestRest: TimeAmount(configuration.pruneInterval * Self.intervalsOfRest)
        )
        let recovery = Recovery(
            configuration: configuration,
            products: products,
            breaker: breaker,
            redis: redis,
            driver: driver,
            coordinator: resyncs,
            outage: outage,
            pruning: pruning,
            events: events
        )
        self.id = id
        self.connections = connections
        self.breaker = breaker
        self.redis = redis
        self.gates = gates
        self.resyncs = resyncs
        self.driver = driver
        self.recovery = recovery
        self.pruning = pruning
        self.configuration = configuration
        recoveryLatch = latch
        sweep = Sweep(
            products: products,
            gates: gates,
            resyncs: resyncs,
            breaker: breaker,
            events: events,
            metrics: metrics,
            chunk: configuration.resyncChunk,
            bound: commons.times.pendingBound,
            longestRest: TimeAmount(configuration.sweepInterval * Self.intervalsOfRest)
        )
        audit = Audit(
            products: products,
            ledger: commons.ledger,
            gates: gates,
            resyncs: resyncs,
            breaker: breaker,
            events: events,
            metrics: metrics,
            chunk: configuration.resyncChunk
        )
        latch.open(recovery)
    }

    /// Works in the background until the task is cancelled, or the shard ends: resyncs, the sweep, the audit and pruning.
    func run() async {
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await self.resyncs.run(self.driver) }
            group.addTask { await StockEngine.every(self.configuration.sweepInterval) { await self.sweep.run() } }
            group.addTask { await StockEngine.every(self.configuration.auditInterval) { await self.audit.run() } }
            group.addTask { await StockEngine.every(self.configuration.pruneInterval) { await self.pruning.run() } }
            group.addTask { _ = try? await self.ended.value() }
            // The others go on until they are cancelled.
            _ = await group.next()
            group.cancelAll()
        }
    }

    /// Lets no call through any more. Every reply that is still to come is taken.
    func shutdown() {
        breaker.shutdown()
        recoveryLatch.close()
    }

    /// The master serves no slot any more. The cluster closes its connections.
    func end() {
        shutdown()
        resyncs.shutdown()
        ended.open(())
    }
}
