import CircuitBreaker
import Logging
import NIOPosix
import PostgresClient
import ServerKit
import ServerMetrics

/// The parts of an order server that sells. ``OrderFollowerParts`` has the parts of a server that follows.
struct OrderServerParts {
    let settings: OrderServerConfiguration
    let publicRouter: ServerRouter
    let adminRouter: ServerRouter
    let hotPath: PlaceOrderHotPath
    let registry: MetricsRegistry
    let drain = ServerDrain()
    let prepared = PreparedLatch()
    let stores: StoresService
    let transactions: TransactionWatch
    let predecessors: Predecessors
    let groups: OrderGroups
    let foundation: OrderFlows.Foundation
    let flows: OrderFlows
    let recovery: RecoveryService
    /// Nil without a broker.
    let messaging: MessagingService?

    init(
        _ settings: OrderServerConfiguration,
        group: MultiThreadedEventLoopGroup,
        logger: Logger,
        endpoints: MessageEndpoints? = nil
    ) throws {
        self.settings = settings
        let registry = MetricsRegistry()
        self.registry = registry
        let http = HTTPMetrics(registry: registry)
        ProcessMetrics.register(in: registry)
        let metrics = OrderMetrics(registry)

        // The database, the broker and the product server.
        let pool = PostgresPool(configuration: settings.postgres, maximumConnections: settings.poolConnections)
        let broker = try settings.messaging.map { try BrokerSide($0, settings, endpoints, registry: registry, logger: logger) }
        let store = OrderStore(pool: pool, recoveryAge: settings.recoveryAge, outbox: broker?.outbox)
        let readers = ReadStores(settings)
        readers.register(in: registry)
        let hosts = settings.postgres.hosts
        hosts.report(in: registry, logger: logger)
        hosts.watchHistory { change in
            logger.error(
                "the order database is another server's data than before, which may lack orders",
                metadata: ["now": "\(change.now)", "before": "\(change.before)"]
            )
            // Orders that are lost had ids, and so may their sequence have been set back.
            Task { await IDSequence.raiseAll(settings.postgres, logger: logger) }
        }
        transactions = TransactionWatch(readers.lists, registry: registry, logger: logger)
        let changes = OrderWatch(maximumWaiters: settings.maximumWaiters, store: store, logger: logger)
        changes.register(in: registry)
        let waiting = WaitingBuyers()
        registry.gauge("stockgate_orders_waiting_buyers", help: "Buyers that wait for the answer to an order or a cancel") {
            Double(waiting.count)
        }
        let groups = try OrderGroups(
            settings,
            pool: pool,
            outbox: broker?.outbox,
            waiting: waiting,
            changes: changes,
            metrics: metrics,
            logger: logger
        )
        groups.register(metrics, in: registry)
        self.groups = groups
        let product = try ProductSide(settings, group: group, metrics: metrics, logger: logger)
        CircuitBreakerMetrics.register(product.breakers, in: registry, resilience4j: settings.server.showsResilience4jMetrics)
        product.register(groups, in: registry)
        registry.gauge("stockgate_orders_database_waiting", help: "Callers that wait for a connection of the pool") {
            Double(pool.snapshot().waiting)
        }

        // The flows of an order.
        let predecessors = try Predecessors(
            settings.postgres,
            patience: settings.deadlines.buyer,
            prepared: self.prepared,
            logger: logger
        )
        self.predecessors = predecessors
        let foundation = OrderFlows.Foundation(
            store: store,
            groups: groups,
            waiting: waiting,
            changes: changes,
            predecessors: predecessors,
            cells: product.cells,
            backlog: broker?.backlog,
            steps: [.stock(product.cells)],
            metrics: metrics,
            logger: logger
        )
        let flows = OrderFlows(settings, on: foundation)
        self.foundation = foundation
        self.flows = flows
        self.messaging = try broker?.service(flows.conclusion, product.cells, changes, settings, self.prepared)
        recovery = RecoveryService(
            settings: settings.recovery,
            conclusion: flows.conclusion,
            cancellation: flows.cancellation,
            outbox: settings.messaging.map {
                RecoveryService.Outbox(
                    store: OutboxStore(pool: pool),
                    backlog: broker?.backlog,
                    age: $0.recoveryAge,
                    retention: $0.retention
                )
            },
            partitions: product.cells.recoveries,
            prepared: self.prepared
        )

        // The interfaces for callers.
        let publicRouter = ServerRouter(metrics: http)
        let checks: [HealthCheck] =
            [.database(groups.insertion, groups.completion, groups.keys)] + product.checks
            + (broker.map { [.broker($0.endpoints, $0.backlog, product.cells)] } ?? [])
        HealthRoutes(checks: checks, drain: self.drain).register(on: publicRouter)
        OpenAPIDocument(PackageResources.openapi_json).register(on: publicRouter)
        OrderReadRoutes(store: readers.orders, changes: changes).register(on: publicRouter)
        OrderRoutes(placing: flows.placing, accepting: flows.accepting, cancellation: flows.cancellation).register(on: publicRouter)
        UserOrderRoutes(
            placing: flows.placing,
            accepting: flows.accepting,
            earlier: flows.earlier,
            cells: product.cells,
            checksUnitPrice: settings.checksUnitPrice
        ).register(on: publicRouter)
        self.publicRouter = publicRouter
        hotPath = PlaceOrderHotPath(placing: flows.placing, accepting: flows.accepting, metrics: http)

        let adminRouter = ServerAssembly.adminRouter(metrics: http, registry: registry, tokens: settings.server.adminTokens)
        InternalRoutes(
            rerun: flows.rerun,
            outbox: OutboxStore(pool: pool, lists: readers.lists, listBound: settings.reads.listBound)
        ).register(on: adminRouter)
        CircuitBreakerRoutes(registry: product.breakers).register(on: adminRouter)
        self.adminRouter = adminRouter

        stores = StoresService {
            changes.shutdown()
            await groups.shutdown()
            await pool.shutdown()
            await readers.shutdown()
            await predecessors.shutdown()
            product.shutdown()
        }
    }

    /// The server of these parts.
    func assembly(
        _ group: MultiThreadedEventLoopGroup,
        logger: Logger,
        onReady: @escaping @Sendable (ServerAssembly.Ports) async -> Void
    ) -> ServerAssembly {
        let start = StartWait(timeout: self.settings.server.startTimeout, logger: logger)
        let (postgres, groups, predecessors) = (self.settings.postgres, self.groups, self.predecessors)
        return ServerAssembly(
            name: OrderServer.program.name,
            settings: self.settings.server,
            logger: logger,
            publicRouter: self.publicRouter,
            adminRouter: self.adminRouter,
            registry: self.registry,
            eventLoopGroup: group,
            services: [stores, self.predecessors, transactions] + (messaging.map { [$0] } ?? []) + [recovery],
            hotPath: self.hotPath,
            drain: self.drain,
            rereadables: self.settings.rereadables,
            prepare: {
                try await start.waitForPostgres(at: "ORDER_DATABASE_URL") {
                    _ = try await Migrator(configuration: postgres, lockWait: StartWait.lockWait).apply(OrderStore.migrations)
                }
                await IDSequence.raiseAll(postgres, logger: logger)
                await groups.connect()
                await predecessors.begin()
            },
            prepared: self.prepared,
            onReady: onReady
        )
    }
}
