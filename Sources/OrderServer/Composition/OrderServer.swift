// The composition root: the only place of this server that knows every concrete type.

import CircuitBreaker
import Glibc
import Logging
import NIOPosix
import PostgresClient
import ServerKit
import ServerMetrics
import ServiceLifecycle
import StockContract

/// The order server: orders, their saga and its recovery, over HTTP.
public enum OrderServer {
    static let program = "order-server"
    static let summary = "the order server: orders and their saga, in PostgreSQL, over the product server"

    /// The text of `--help`: every setting with its default.
    public static var help: String {
        var reader = SettingsReader(environment: [:])
        _ = try? OrderSettings(from: &reader)
        return reader.help(program: self.program, summary: self.summary)
    }

    /// The program: reads the environment, runs, and ends the process with a status if that fails.
    public static func main() async {
        if CommandLine.arguments.dropFirst().contains(where: { $0 == "--help" || $0 == "-h" }) {
            print(self.help)
            return
        }
        HangupWatch.outlive()
        do {
            var reader = SettingsReader()
            let settings = try OrderSettings(from: &reader)
            ServerLogHandler.bootstrap(level: settings.server.logLevel, format: settings.server.logFormat)
            Logger(label: self.program).info("starting", metadata: ["settings": "\(reader.givenText)"])
            try await self.run(settings)
        } catch {
            ServerLogHandler.writeToStandardError(Array(Redaction.masked("\(self.program): \(error)\n").utf8))
            exit(1)
        }
    }

    /// Runs until SIGTERM or SIGINT.
    public static func run(
        _ settings: OrderSettings,
        onReady: @escaping @Sendable (ServerAssembly.Ports) async -> Void = { _ in }
    ) async throws {
        try await self.run(settings, endpoints: nil, onReady: onReady)
    }

    /// The same, with ends at the broker other than those that the settings name.
    static func run(
        _ settings: OrderSettings,
        endpoints: MessageEndpoints?,
        onReady: @escaping @Sendable (ServerAssembly.Ports) async -> Void
    ) async throws {
        let logger = Logger(label: self.program)
        if settings.follows, let broker = settings.messaging?.broker {
            let onChange = BrokerEventSource.observer(logger)
            try await OrderFollower.run(
                settings,
                logger: logger,
                open: { try BrokerEventSource(broker, start: $0, onChange: onChange) },
                onReady: onReady
            )
            return
        }
        let group = ServerAssembly.eventLoopGroup(settings.server)
        let parts = try OrderServerParts(settings, group: group, logger: logger, endpoints: endpoints)
        let postgres = settings.postgres
        let recovery = parts.recovery
        let connectWriters = parts.connectWriters
        let messaging = parts.messaging
        let start = StartWait(timeout: settings.server.startTimeout, logger: logger)
        try await ServerAssembly(
            name: self.program,
            settings: settings.server,
            logger: logger,
            publicRouter: parts.publicRouter,
            adminRouter: parts.adminRouter,
            registry: parts.registry,
            eventLoopGroup: group,
            services: [parts.stores, parts.transactions] + (messaging.map { [$0] } ?? []) + [recovery],
            hotPath: parts.hotPath,
            drain: parts.drain,
            rereadables: settings.rereadables,
            prepare: {
                try await start.waitForOrders { _ = try await Migrator(configuration: postgres).apply(OrderStore.migrations) }
                await IDSequence.raiseAll(postgres, logger: logger)
                await connectWriters()
                recovery.begin()
                messaging?.begin()
            },
            onReady: onReady
        ).run()
    }
}

extension StartWait {
    /// Waits for the order database.
    func waitForOrders(_ attempt: @escaping @Sendable () async throws -> Void) async throws {
        try await self.wait(
            for: "PostgreSQL",
            at: "ORDER_DATABASE_URL",
            judge: { PostgresStartTrouble($0).map { ($0.isNotThereYet, $0.words) } },
            attempt
        )
    }
}

/// Everything that one order server consists of.
struct OrderServerParts {
    let publicRouter: ServerRouter
    let adminRouter: ServerRouter
    let hotPath: PlaceOrderHotPath
    let registry: MetricsRegistry
    let drain = ServerDrain()
    let stores: StoresService
    let transactions: TransactionWatch
    let recovery: RecoveryService
    /// Nil without a broker.
    let messaging: MessagingService?
    let flow: OrderFlow
    /// Takes the places at the database that selling needs, before anything else takes them.
    let connectWriters: @Sendable () async -> Void

    init(
        _ settings: OrderSettings,
        group: MultiThreadedEventLoopGroup,
        logger: Logger,
        endpoints: MessageEndpoints? = nil
    ) throws {
        let registry = MetricsRegistry()
        self.registry = registry
        let metrics = HTTPMetrics(registry: registry)
        ProcessMetrics.register(in: registry)
        let figures = OrderFigures(registry)

        let pool = PostgresPool(configuration: settings.postgres, maximumConnections: settings.poolConnections)
        let broker = try settings.messaging.map { try BrokerSide($0, settings, endpoints, registry: registry, logger: logger) }
        let store = OrderStore(pool: pool, recoveryAge: settings.recoveryAge, outbox: broker?.outbox)
        let readers = ReadStores(settings)
        readers.register(in: registry)
        self.transactions = readers.transactions(registry, logger)
        let changes = OrderChanges(maximumWaiters: settings.maximumWaiters, store: store, logger: logger)
        changes.register(in: registry)
        let onTrouble = { @Sendable [weak pool] (writer: String, trouble: PostgresError?, isNews: Bool) in
            // The database may have no place left: what nobody uses gives way to what sells.
            if trouble?.code == .connectFailed { pool?.closeIdle() }
            guard isNews else { return }
            guard let trouble else { return logger.notice("orders' database works again", metadata: ["writer": "\(writer)"]) }
            logger.warning("orders cannot use their database", metadata: ["writer": "\(writer)", "why": "\(trouble)"])
        }
        var writers = settings.groupPostgres
        writers.lockTimeout = GroupWrite.rowWait
        let locked = try LockedRows(
            configuration: settings.groupPostgres,
            table: "orders",
            id: "id",
            turn: GroupWrite.rowWait
        ) { change in
            switch change {
            case .locked(let orders):
                logger.warning(
                    "rows of orders are locked by another transaction",
                    metadata: ["orders": "\(orders.prefix(8).map(String.init).joined(separator: ","))", "count": "\(orders.count)"]
                )
            case .freed(let order, let after):
                logger.notice("the row of an order is free again", metadata: ["order": "\(order)", "after": "\(after)"])
            }
        }
        figures.register(locked, in: registry)
        let insertion = try OrderInsertion(
            configuration: writers,
            maximumQueued: settings.maximumQueued,
            maximumBatch: settings.maximumBatch,
            batches: figures.insertBatches,
            outbox: broker?.outbox,
            onTrouble: onTrouble,
            idsCameAgain: { sequence, raise in
                figures.idsTaken.add()
                if let raise { return IDSequence.warn(sequence, raise, logger) }
                logger.warning("ids had rows already; others were taken", metadata: ["sequence": "\(sequence.rawValue)"])
            }
        )
        let completion = try OrderCompletion(
            configuration: writers,
            maximumQueued: settings.maximumQueued,
            maximumBatch: settings.maximumBatch,
            batches: figures.completionBatches,
            locked: locked,
            outbox: broker?.outbox,
            changed: changes,
            onTrouble: onTrouble
        )
        let keys = try KeyLookup(
            configuration: settings.groupPostgres,
            maximumQueued: settings.maximumQueued,
            maximumBatch: settings.maximumBatch,
            onTrouble: onTrouble
        )
        self.connectWriters = {
            async let inserting: Void = insertion.connect()
            async let completing: Void = completion.connect()
            async let looking: Void = keys.connect()
            _ = await (inserting, completing, looking)
        }

        let loop = group.next()
        let publicPeers = HTTPPeers(settings.productServers, loop: loop, connectionAge: settings.connectionAge)
        let batchPeers =
            settings.internalServers.isEmpty
            ? nil : HTTPPeers(settings.internalServers, loop: loop, connectionAge: settings.connectionAge)
        let breaker = CircuitBreaker(name: "productServer", settings: settings.breaker)
        let breakers = CircuitBreakerRegistry()
        try breakers.add(breaker)
        let calls = StockBatches(
            peers: batchPeers ?? publicPeers,
            route: batchPeers == nil ? .single : .batch,
            settings: StockBatches.Settings(
                // One request carries one order then: as many calls as orders may be at work.
                maximumCalls: batchPeers == nil ? max(64, settings.maximumCalls) : settings.maximumCalls,
                maximumQueued: settings.maximumQueued,
                callTimeout: settings.callTimeout,
                token: settings.token
            ),
            breaker: breaker,
            loop: loop,
            sizes: figures.callBatches
        )
        let soldOut = SoldOutMemory(time: settings.soldOutTime)
        let flow = OrderFlow(
            settings: settings.flow,
            store: store,
            insertion: insertion,
            completion: completion,
            keys: keys,
            orchestrator: SagaOrchestrator(steps: [.stock(calls, soldOut: soldOut)], policy: settings.retry),
            soldOut: soldOut,
            breaker: breaker,
            figures: figures,
            backlog: broker?.backlog,
            changes: changes,
            logger: logger
        )
        self.flow = flow
        self.messaging = try broker?.service(flow, changes, settings)

        CircuitBreakerMetrics.register(breakers, in: registry, resilience4j: settings.server.showsResilience4jMetrics)
        registry.collector("orders_waiting", help: "Orders that wait for a step", kind: .gauge) {
            [
                .init(labels: [(name: "step", value: "insert")], Double(insertion.queued)),
                .init(labels: [(name: "step", value: "product")], Double(calls.queued)),
                .init(labels: [(name: "step", value: "complete")], Double(completion.queued)),
            ]
        }
        registry.gauge("orders_database_waiting", help: "Callers that wait for a connection of the pool") { Double(pool.figures().waiting) }

        let publicRouter = ServerRouter(metrics: metrics)
        var checks = [
            // Asked of the sessions that write orders: another connection may well work while they do not.
            HealthCheck("database") {
                async let inserting = insertion.troubleWriting()
                async let completing = completion.troubleWriting()
                async let looking = keys.trouble()
                let (insert, complete, look) = await (inserting, completing, looking)
                guard let trouble = insert ?? complete ?? look else { return HealthReport(.up) }
                return HealthReport(
                    insert == nil && complete == nil ? .degraded : .down,
                    detail: [
                        "reason": .string(String(describing: trouble)), "canMakeOrders": .bool(insert == nil),
                        "canCompleteOrders": .bool(complete == nil), "canFindKeys": .bool(look == nil),
                    ]
                )
            },
            // Without the product server this server still shows and keeps orders.
            HealthCheck("productServer", timeoutState: .degraded) {
                let state = breaker.state
                return HealthReport(state == .closed ? .up : .degraded, detail: ["breaker": .string(state.rawValue)])
            },
        ]
        if let broker { checks.append(broker.healthCheck(breaker)) }
        HealthRoutes(checks: checks, drain: self.drain).register(on: publicRouter)
        OpenAPIDocument(PackageResources.openapi_json).register(on: publicRouter)
        OrderReadRoutes(store: readers.orders, changes: changes).register(on: publicRouter)
        OrderRoutes(flow: flow).register(on: publicRouter)
        UserOrderRoutes(
            flow: flow,
            catalogue: ProductCatalogue(peers: publicPeers, timeout: settings.callTimeout),
            checksUnitPrice: settings.checksUnitPrice
        ).register(on: publicRouter)
        self.publicRouter = publicRouter
        self.hotPath = PlaceOrderHotPath(flow: flow, metrics: metrics)

        let adminRouter = ServerAssembly.adminRouter(metrics: metrics, registry: registry, tokens: settings.server.adminTokens)
        InternalRoutes(
            flow: flow,
            outbox: OutboxStore(pool: pool, lists: readers.lists, listBound: settings.reads.listBound)
        ).register(on: adminRouter)
        CircuitBreakerRoutes(registry: breakers).register(on: adminRouter)
        self.adminRouter = adminRouter

        self.stores = StoresService {
            changes.shutdown()
            await insertion.shutdown()
            await locked.shutDown()
            await completion.shutdown()
            await keys.shutdown()
            await pool.shutdown()
            await readers.shutdown()
            publicPeers.close()
            batchPeers?.close()
            breakers.shutdown()
        }
        self.recovery = RecoveryService(
            settings: settings.recovery,
            flow: flow,
            store: store,
            outbox: settings.messaging.map {
                RecoveryService.Outbox(store: OutboxStore(pool: pool), age: $0.recoveryAge, retention: $0.retention)
            },
            logger: logger
        )
    }
}

/// What there is only with a broker.
private struct BrokerSide {
    let settings: MessagingSettings
    let endpoints: MessageEndpoints
    let backlog: OutboxBacklog
    let outbox: OutboxWriting
    let figures: MessagingFigures
    let commands: OutboxRelay
    let events: OutboxRelay
    let logger: Logger

    init(
        _ messaging: MessagingSettings,
        _ settings: OrderSettings,
        _ given: MessageEndpoints?,
        registry: MetricsRegistry,
        logger: Logger
    ) throws {
        let endpoints = try given ?? MessageEndpoints(messaging.broker, prefetch: messaging.prefetch, logger: logger)
        let backlog = OutboxBacklog(maximumOrders: messaging.maximumOrders, maximumEvents: messaging.maximumEvents)
        let figures = MessagingFigures(registry)
        MessagingFigures.register(endpoints, backlog, in: registry)
        let relay = { (kind: OutboxSQL.Kind, publisher: any MessagePublishing) throws(PostgresError) in
            try OutboxRelay(
                kind,
                configuration: settings.relayPostgres,
                settings: messaging.relay,
                publishTimeout: messaging.broker.confirmTimeout + .seconds(2),
                publisher: publisher,
                backlog: backlog,
                figures: figures,
                logger: logger
            )
        }
        let commands = try relay(.commands, endpoints.publisher)
        let events = try relay(.events, endpoints.events)
        self.settings = messaging
        self.endpoints = endpoints
        self.backlog = backlog
        self.figures = figures
        self.commands = commands
        self.events = events
        self.logger = logger
        self.outbox = OutboxWriting(
            backlog: backlog,
            droppedEvents: figures.droppedEvents,
            wakeCommands: { commands.wake() },
            wakeEvents: { events.wake() },
            mustNotify: { !endpoints.publisher.snapshot.isConnected }
        )
    }

    func service(
        _ flow: OrderFlow,
        _ changes: OrderChanges,
        _ settings: OrderSettings
    ) throws -> MessagingService {
        MessagingService(
            endpoints: self.endpoints,
            relays: [self.commands, self.events],
            consumer: try ResultConsumer(
                configuration: settings.groupPostgres,
                settings: self.settings.results,
                endpoints: self.endpoints,
                flow: flow,
                outbox: self.outbox,
                changes: changes,
                figures: self.figures,
                logger: self.logger
            ),
            postgres: settings.postgres,
            logger: self.logger
        )
    }

    /// Without the broker, or while it takes no messages (its memory or disk is short), this server still sells over HTTP, and accepts orders up to a bound: it is degraded. It is of no use where neither
    /// way is open: as many orders wait as may, and the product server is not asked.
    func healthCheck(_ products: CircuitBreaker) -> HealthCheck {
        let endpoints = self.endpoints
        let backlog = self.backlog
        return HealthCheck("broker", timeoutState: .degraded) {
            let snapshots = [endpoints.publisher.snapshot, endpoints.events.snapshot, endpoints.results.snapshot]
            let (publisher, events, results) = (snapshots[0].isConnected, snapshots[1].isConnected, snapshots[2].isConnected)
            // The same words of several connections once.
            let failures = Set(snapshots.compactMap { $0.isConnected ? nil : $0.lastFailure.map { Redaction.masked($0.message) } })
            let blocked = snapshots[0].blockedReason ?? snapshots[1].blockedReason
            let isFull = backlog.orders >= backlog.maximumOrders
            let state: HealthState =
                if isFull, products.isWaiting { .down } else if publisher, events, results, blocked == nil, !isFull { .up } else {
                    .degraded
                }
            return HealthReport(
                state,
                detail: [
                    "commandsConnected": .bool(publisher), "eventsConnected": .bool(events), "resultsConnected": .bool(results),
                    "blocked": blocked.map { .string($0) } ?? .null,
                    "waitingOrders": .int(Int64(backlog.orders)), "maximumWaitingOrders": .int(Int64(backlog.maximumOrders)),
                    "waitingEvents": .int(Int64(backlog.events)),
                    "failures": .array(failures.sorted().map { .string($0) }),
                ]
            )
        }
    }
}

/// Ends connections and threads when everything that uses them has ended.
struct StoresService: Service, CustomStringConvertible {
    let end: @Sendable () async -> Void
    var description: String { "stores" }

    func run() async throws {
        try? await gracefulShutdown()
        await self.end()
    }
}
