import CircuitBreaker
import Logging
import NIOCore
import NIOPosix
import PostgresClient
import ServerKit
import ServerMetrics
import ServiceLifecycle
import StockContract
import StockGate

struct ProductServerParts {
    let settings: ProductServerConfiguration
    let engine: StockEngine
    let publicRouter: ServerRouter
    let adminRouter: ServerRouter
    let hotPath: DecreaseHotPath
    let adminHotPath: StockBatchHotPath
    let registry = MetricsRegistry()
    let drain = ServerDrain()
    let prepared = PreparedLatch()
    let transactions: TransactionWatch
    /// Nil without a broker.
    let consumer: DecreaseConsumer?

    init(
        _ settings: ProductServerConfiguration,
        _ engine: StockEngine,
        broker: BrokerConnections? = nil,
        eventLoop: any EventLoop = MultiThreadedEventLoopGroup.singleton.any(),
        logger: Logger = Logger(label: ProductServer.program.name)
    ) throws {
        self.settings = settings
        self.engine = engine
        let registry = self.registry
        let metrics = HTTPMetrics(registry: registry)
        ProcessMetrics.register(in: registry)
        registry.register(engine)
        let breakers = CircuitBreakerRegistry()
        engine.followBreakers { breakers.hold($0) }
        CircuitBreakerMetrics.register(breakers, in: registry, resilience4j: settings.server.showsResilience4jMetrics)
        settings.engine.ledger.postgres.hosts.report(in: registry, logger: logger)
        transactions = TransactionWatch(engine.ledger.reads, registry: registry, logger: logger)

        // The broker.
        let prepared = self.prepared
        let consumer = broker.flatMap { broker in
            settings.messaging.map { messaging in
                DecreaseConsumer(
                    source: broker.source,
                    sink: broker.sink,
                    registry: registry,
                    ids: settings.ids,
                    eventLoop: eventLoop,
                    prefetch: messaging.prefetch,
                    maximumOrders: messaging.maximumOrders,
                    giveUpAfter: messaging.giveUpAfter,
                    // HTTP ends its requests first. Both phases fit into the server's bound.
                    stopWithin: settings.server.shutdownTimeout / 2,
                    prepared: prepared,
                    logger: logger,
                    isLocked: { engine.ledger.lockedProducts.isLocked($0) }
                ) { request, isPatient, loop, completion in
                    engine.decrease(request, on: loop, isPatient: isPatient, completion: completion)
                }
            }
        }
        self.consumer = consumer

        // The interfaces for callers.
        let store = CatalogStore(ledger: engine.ledger, listBound: settings.listBound, ids: settings.ids)
        let own = OwnProducts(ids: settings.ids)
        let services = ServiceGuard(tokens: settings.serviceTokens)
        let trouble = DatabaseTrouble()
        let checks = [.database(engine), .redis(engine)] + (consumer.map { [$0.healthCheck] } ?? [])
        let publicRouter = ServerRouter(metrics: metrics)
        publicRouter.add(middleware: ServiceRouteGuard(services, openReads: ProductServerParts.openReads))
        HealthRoutes(checks: checks, drain: self.drain).register(on: publicRouter)
        OpenAPIDocument(ProductServer.openAPI).register(on: publicRouter)
        publicRouter.add(middleware: trouble)
        CatalogRoutes(catalog: Catalog(store: store, engine: engine, own: own)).register(on: publicRouter)
        StockRoutes(engine: engine, store: store, own: own).register(on: publicRouter)
        self.publicRouter = publicRouter
        hotPath = DecreaseHotPath(
            engine: engine,
            own: own,
            services: services,
            metrics: metrics.ofRoute("/products/{id}/stock/decrease-by-order", method: "PATCH")
        )

        let adminServices = AdminGuard.Services(tokens: settings.serviceTokens, templates: [StockBatch.path])
        let adminRouter = ServerAssembly.adminRouter(
            metrics: metrics,
            registry: registry,
            tokens: settings.server.adminTokens,
            services: adminServices
        )
        adminRouter.add(middleware: trouble)
        StockAdminRoutes(engine: engine, own: own).register(on: adminRouter)
        StockBatchRoute(engine: engine, own: own).register(on: adminRouter)
        CircuitBreakerRoutes(registry: breakers).register(on: adminRouter)
        self.adminRouter = adminRouter
        adminHotPath = StockBatchHotPath(
            engine: engine,
            own: own,
            callers: AdminGuard(tokens: settings.server.adminTokens, services: adminServices),
            metrics: metrics.ofRoute(StockBatch.path, method: "POST"),
            isLogging: logger.logLevel <= .debug
        )
    }

    /// The server of these parts.
    func assembly(
        _ group: MultiThreadedEventLoopGroup,
        logger: Logger,
        onReady: @escaping @Sendable (ServerAssembly.Ports) async -> Void
    ) -> ServerAssembly {
        let start = StartWait(timeout: self.settings.server.startTimeout, logger: logger)
        let (postgres, engine, ids) = (self.settings.engine.ledger.postgres, self.engine, self.settings.ids)
        let consumer: [any Service] = self.consumer.map { [$0] } ?? []
        return ServerAssembly(
            name: ProductServer.program.name,
            settings: self.settings.server,
            logger: logger,
            publicRouter: self.publicRouter,
            adminRouter: self.adminRouter,
            registry: self.registry,
            eventLoopGroup: group,
            services: [EngineService(engine: engine, prepared: self.prepared)] + consumer + [transactions],
            hotPath: self.hotPath,
            adminHotPath: self.adminHotPath,
            // Orders are served even if the admin port has too many connections.
            adminRules: .init(
                largerBodies: [StockBatch.path: StockBatch.maximumBytes],
                reservedPaths: ["/metrics": false, StockBatch.path: true]
            ),
            drain: self.drain,
            rereadables: self.settings.rereadables,
            prepare: {
                try await start.waitForPostgres(at: "PRODUCT_DATABASE_URL") {
                    _ = try await Migrator(configuration: postgres, lockWait: StartWait.lockWait).apply(ProductServer.migrations)
                    try await engine.start()
                }
                if let ids { try await ProductSequence(pool: engine.ledger.pool, ids: ids).prepare() }
            },
            prepared: self.prepared,
            onReady: onReady
        )
    }

    /// The reads that are open to every caller of the public port. All other routes are for the shop's services.
    static let openReads: Set<String> = [
        "/livez", "/readyz", "/openapi.json", "/products", "/products/{id}", "/v1/products", "/v1/products/{id}",
    ]
}
