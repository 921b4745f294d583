// How the engine's parts are put together. Each part knows only parts that were made before it, and none knows the engine.

import NIOCore
import NIOTransportSecurity
import PostgresClient
import RedisClient

/// The connections to Redis.
enum RedisStore: Sendable {
    /// To one server, or to the master that sentinels name.
    case one(RedisClient)
    /// To the masters of a cluster.
    case cluster(RedisCluster)
}

struct EngineParts: Sendable {
    let ledger: PostgresLedger
    let redis: RedisStore
    let events: EventLog
    let inFlight: InFlight
    let shards: Shards
    let products: GatedProducts
    let restoreCheck: RestoreCheck
    /// The request context of each event loop, by the loop's identity.
    let contexts: [ObjectIdentifier: RequestContext]

    var isCluster: Bool {
        switch redis {
        case .one: false
        case .cluster: true
        }
    }

    init(
        _ configuration: EngineConfiguration,
        eventLoopGroup: any EventLoopGroup,
        metrics: EngineMetrics,
        onEvent: @escaping @Sendable (EngineEvent) -> Void
    ) throws(PostgresError) {
        let times = EngineTimes(configuration)
        let events = EventLog(onEvent)
        let inFlight = InFlight(maximum: configuration.maximumInFlight, metrics: metrics)
        let shards = Shards()
        let products = GatedProducts(shards: shards, resyncInterval: times.resyncInterval)
        let ledger = try Self.ledger(configuration, events)
        configuration.ledger.postgres.hosts.watchHistory { change in
            metrics.ledgerMoves.add(1)
            events.tell(.ledgerMoved(now: "\(change.now)", before: "\(change.before)"))
            products.ledgerMoved()
        }
        let commons = ShardCommons(
            configuration: configuration,
            times: times,
            group: eventLoopGroup,
            ledger: ledger,
            products: products,
            inFlight: inFlight,
            events: events,
            metrics: metrics
        )
        redis = Self.cluster(commons, shards).map { .cluster($0) } ?? .one(Self.one(commons, shards))
        let bumps = FenceBumps(ledger: ledger, events: events, inFlight: inFlight)
        var contexts: [ObjectIdentifier: RequestContext] = [:]
        for (place, loop) in eventLoopGroup.makeIterator().enumerated() {
            contexts[ObjectIdentifier(loop)] = RequestContext(
                eventLoop: loop,
                place: place,
                ledger: ledger,
                metrics: metrics,
                times: times,
                inFlight: inFlight,
                products: products,
                bumps: bumps
            )
        }
        self.ledger = ledger
        self.events = events
        self.inFlight = inFlight
        self.shards = shards
        self.products = products
        restoreCheck = RestoreCheck(products: products, ledger: ledger, chunk: configuration.resyncChunk)
        self.contexts = contexts
    }

    /// One server, or one that sentinels name: one shard.
    private static func one(_ commons: ShardCommons, _ shards: Shards) -> RedisClient {
        let events = commons.events
        let shard = Shard(commons) { connections in
            RedisClient(
                configuration: commons.configuration.redis,
                eventLoopGroup: commons.group,
                onConnect: { connections.learn($0) },
                onDisconnect: { _, error in events.tell(.redisDisconnected(why: String(describing: error))) },
                onTLSFailure: { connections.refused($0.description) },
                masterHooks: .init(
                    onMaster: { events.tell(.redisMaster("\($0)", saidBy: "\($1)")) },
                    onTrouble: { events.tell(.redisMasterUnknown(why: $0)) }
                )
            )
        }
        shards.set(only: shard)
        return shard.redis
    }

    /// A cluster: a shard for each master, when its map is known. Nil if the address names none.
    private static func cluster(_ commons: ShardCommons, _ shards: Shards) -> RedisCluster? {
        let events = commons.events
        // The hooks refer to the shards, which refer to the client. `StockEngine` has the shards forgotten in the end.
        let cluster = RedisCluster(
            configuration: commons.configuration.redis,
            eventLoopGroup: commons.group,
            onConnect: { master, connection in
                guard let shard = shards.shard(at: master) else {
                    return connection.eventLoop.makeFailedFuture(RedisError(.notConnected, detail: "\(master) is no master of the map"))
                }
                return shard.connections.learn(connection)
            },
            onDisconnect: { master, _, error in
                events.of(master: "\(master)").tell(.redisDisconnected(why: String(describing: error)))
            },
            onTLSFailure: { master, failure in shards.shard(at: master)?.connections.refused(failure.description) },
            mapHooks: .init(
                onMap: { map, node in Self.use(map, saidBy: node, commons, shards) },
                onTrouble: { events.tell(.redisMapUnknown(why: $0)) }
            )
        )
        if let cluster { shards.set { id, master in Shard(id, of: master, cluster, commons) } }
        return cluster
    }

    /// The cluster's slots are served by these masters now. Called for one map at a time.
    private static func use(_ map: SlotMap, saidBy node: RedisEndpoint, _ commons: ShardCommons, _ shards: Shards) {
        let change = shards.use(map)
        for shard in change.added { shard.gates.serve(ledger: commons.products.ledgerName) }
        let moved = commons.products.place(whileNew: change.added)
        commons.metrics.moved.add(UInt64(moved))
        shards.settle(change)
        commons.events.tell(.redisMap(masters: map.masters.map(\.description), uncovered: map.uncovered, moved: moved, saidBy: "\(node)"))
    }

    private static func ledger(_ configuration: EngineConfiguration, _ events: EventLog) throws(PostgresError) -> PostgresLedger {
        try PostgresLedger(configuration.ledger) { lane, trouble in
            events.tell(.laneChanged(lane, why: trouble.map { String(describing: $0) }))
        } onLockedProducts: { change in
            switch change {
            case .locked(let rows): events.tell(.productsLocked(rows.map { ProductID($0) }))
            case .freed(let row, let after): events.tell(.productUnlocked(ProductID(row), after: after))
            }
        }
    }
}
