// How the engine's parts are put together.
//
// Each part knows only parts that were made before it, and none knows the engine. There is one circle: the breaker runs the recovery, the recovery works on the
// gates, and the gates ask the breaker. Therefore the breaker gets a latch, and waits there for the recovery to be made. `StockEngine` closes the latch when it
// shuts down, which breaks the circle.

import CircuitBreaker
import NIOCore
import PostgresClient
import NIOTransportSecurity
import RedisClient

struct EngineParts: Sendable {
    let breaker: CircuitBreaker
    let ledger: PostgresLedger
    let redis: RedisClient
    let events: EventLog
    let inFlight: InFlight
    let products: GatedProducts
    let gates: RedisGates
    let resyncs: ResyncCoordinator
    let driver: ResyncDriver
    let recovery: Recovery
    /// The latch through which the breaker gets the recovery.
    let recoveryLatch: Latch<Recovery>
    let sweep: Sweep
    let audit: Audit
    let pruning: Pruning
    /// The request context of each event loop, by the loop's identity.
    let contexts: [ObjectIdentifier: RequestContext]

    init(
        _ configuration: EngineConfiguration,
        eventLoopGroup: any EventLoopGroup,
        metrics: EngineMetrics,
        onEvent: @escaping @Sendable (EngineEvent) -> Void
    ) throws(PostgresError) {
        let times = EngineTimes(configuration)
        let events = EventLog(onEvent)
        let inFlight = InFlight(maximum: configuration.maximumInFlight, metrics: metrics)
        let products = GatedProducts(resyncInterval: times.resyncInterval)
        let outage = Outage()
        let latch = Latch<Recovery>()
        let ledger = try Self.ledger(configuration, events)
        let breaker = CircuitBreaker(
            name: "redisStock",
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
            inFlight: inFlight,
            group: eventLoopGroup,
            events: events,
            metrics: metrics,
            chunk: configuration.resyncChunk
        )
        let connections = GateConnections(events: events) { resyncs.connected(dataset: $0) }
        let redis = RedisClient(
            configuration: configuration.redis,
            eventLoopGroup: eventLoopGroup,
            onConnect: { connections.learn($0) },
            onDisconnect: { _, error in events.tell(.redisDisconnected(why: String(describing: error))) },
            onTLSFailure: { connections.refused($0.description) },
            masterHooks: .init(
                onMaster: { events.tell(.redisMaster("\($0)", saidBy: "\($1)")) },
                onTrouble: { events.tell(.redisMasterUnknown(why: $0)) }
            )
        )
        let reports = GateReports(
            trouble: { events.redisFailed($0) },
            spoiled: { id, failure in if let product = products[id] { resyncs.spoiled(product, failure) } }
        )
        let loops = eventLoopGroup.makeIterator().map { loop in
            RedisGate(eventLoop: loop, client: redis, breaker: breaker, times: times.gate, metrics: metrics, reports: reports)
        }
        let gates = RedisGates(loops)
        let driver = ResyncDriver(ledger: ledger, gates: gates, products: products, metrics: metrics)
        let pruning = Pruning(
            products: products,
            gates: gates,
            redis: redis,
            breaker: breaker,
            events: events,
            metrics: metrics,
            chunk: configuration.resyncChunk
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
        let bumps = FenceBumps(ledger: ledger, events: events, inFlight: inFlight)
        var contexts: [ObjectIdentifier: RequestContext] = [:]
        for gate in loops {
            contexts[ObjectIdentifier(gate.eventLoop)] = RequestContext(
                gate: gate,
                ledger: ledger,
                metrics: metrics,
                times: times,
                inFlight: inFlight,
                products: products,
                resyncs: resyncs,
                bumps: bumps
            )
        }
        self.breaker = breaker
        self.ledger = ledger
        self.redis = redis
        self.events = events
        self.inFlight = inFlight
        self.products = products
        self.gates = gates
        self.resyncs = resyncs
        self.driver = driver
        self.recovery = recovery
        recoveryLatch = latch
        sweep = Sweep(
            products: products,
            gates: gates,
            resyncs: resyncs,
            breaker: breaker,
            events: events,
            metrics: metrics,
            chunk: configuration.resyncChunk,
            bound: times.pendingBound
        )
        audit = Audit(
            products: products,
            ledger: ledger,
            gates: gates,
            resyncs: resyncs,
            breaker: breaker,
            events: events,
            metrics: metrics,
            chunk: configuration.resyncChunk
        )
        self.pruning = pruning
        self.contexts = contexts
        latch.open(recovery)
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
