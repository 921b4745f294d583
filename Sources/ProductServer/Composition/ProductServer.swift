// The composition root: the only place of this server that knows every concrete type.

import CircuitBreaker
import Hummingbird
import Logging
import MessageBroker
import NIOCore
import NIOPosix
import PostgresClient
public import ServerKit
import ServerMetrics
import ServiceLifecycle
import StockContract
import StockGate
import StrictJSON
import Synchronization

/// The product server: catalogue, stock, breaker, over HTTP.
public enum ProductServer {
    static let summary = "the product server: catalogue, stock through Redis, ledger in PostgreSQL"

    /// The text of `--help`: every setting with its default.
    public static var help: String {
        var reader = SettingsReader(environment: [:])
        _ = try? ProductSettings(from: &reader)
        return reader.help(program: "product-server", summary: summary)
    }

    /// Everything that callers reach, made once the engine exists.
    struct Routes {
        let publicRouter: ServerRouter
        let adminRouter: ServerRouter
        let hotPath: DecreaseHotPath
        let registry: MetricsRegistry
        let drain: ServerDrain
        let transactions: TransactionWatch
        /// Nil without a broker.
        let consumer: DecreaseConsumer?
    }

    /// Both connections to the broker, which begin to connect when they are made.
    struct BrokerConnections {
        let source: any CommandSource
        let sink: any ResultSink
    }

    /// Runs until SIGTERM or SIGINT.
    public static func run(_ settings: ProductSettings, onReady: @escaping @Sendable (ServerAssembly.Ports) async -> Void = { _ in })
        async throws
    {
        let logger = Logger(label: "product-server")
        let group = ServerAssembly.eventLoopGroup(settings.server)
        let engine = try StockEngine(settings.engine, eventLoopGroup: group) { event in event.log(logger) }
        let broker = try settings.messaging.map { try connect($0, logger) }
        let routes = try routes(settings, engine, broker: broker, eventLoop: group.next(), logger: logger)
        let consumer = routes.consumer
        let postgres = settings.engine.ledger.postgres
        let engineService = EngineService(engine: engine)
        let start = StartWait(timeout: settings.server.startTimeout, logger: logger)
        try await ServerAssembly(
            name: "product-server",
            settings: settings.server,
            logger: logger,
            publicRouter: routes.publicRouter,
            adminRouter: routes.adminRouter,
            registry: routes.registry,
            eventLoopGroup: group,
            services: [engineService] + (consumer.map { [$0] } ?? []) + [routes.transactions],
            hotPath: routes.hotPath,
            // Orders go on while the admin port has too many connections.
            adminRules: .init(
                maximumBodyBytes: StockBatch.maximumBytes,
                reservedPaths: ["/metrics": false, StockBatch.path: true]
            ),
            drain: routes.drain,
            rereadables: settings.rereadables,
            prepare: {
                try await start.wait(
                    for: "PostgreSQL",
                    at: "PRODUCT_DATABASE_URL",
                    judge: { PostgresStartTrouble($0).map { ($0.isNotThereYet, $0.words) } }
                ) {
                    _ = try await Migrator(configuration: postgres).apply(migrations)
                    try await engine.start()
                }
                engineService.started.open()
                consumer?.open()
            },
            onReady: onReady
        ).run()
    }

    /// The ledger's schema first: the catalogue stands on it.
    static var migrations: [Migration] {
        LedgerMigrations.all.map { Migration(version: $0.version, name: $0.name, sql: $0.sql) } + [
            Migration(version: 100, name: "catalog", sql: String(decoding: PackageResources.V100_catalog_sql, as: UTF8.self)),
            Migration(
                version: 101,
                name: "product_requests",
                sql: String(decoding: PackageResources.V101_product_requests_sql, as: UTF8.self)
            ),
        ]
    }

    /// The OpenAPI 3.1 document that is served.
    static var openAPI: [UInt8] { PackageResources.openapi_json }

    /// Whatever the broker says, sales over HTTP begin without it: the connections go on trying, and health and log say why.
    private static func connect(_ settings: MessagingSettings, _ logger: Logger) throws -> BrokerConnections {
        let journal = BrokerJournal(ends: ["commands", "results"]) { news in
            logger.log(level: news.isTrouble ? .warning : .notice, "\(news.text)", metadata: news.why.map { ["why": "\($0)"] })
        }
        return BrokerConnections(
            source: try Consumer(
                configuration: settings.broker,
                topology: .stock,
                queue: StockGateTopology.decreaseQueue,
                prefetch: settings.prefetch,
                name: "commands",
                onChange: journal.observer(of: "commands")
            ),
            sink: try Publisher(
                configuration: settings.broker,
                topology: .stock,
                name: "results",
                onChange: journal.observer(of: "results")
            )
        )
    }

    static func routes(
        _ settings: ProductSettings,
        _ engine: StockEngine,
        broker: BrokerConnections? = nil,
        eventLoop: any EventLoop = MultiThreadedEventLoopGroup.singleton.any(),
        logger: Logger = Logger(label: "product-server")
    ) throws -> Routes {
        let breakers = CircuitBreakerRegistry()
        try breakers.add(engine.breaker)
        let registry = MetricsRegistry()
        let metrics = HTTPMetrics(registry: registry)
        ProcessMetrics.register(in: registry)
        registry.register(engine)
        CircuitBreakerMetrics.register(breakers, in: registry, resilience4j: settings.server.showsResilience4jMetrics)
        let store = CatalogStore(ledger: engine.ledger, listBound: settings.listBound)
        let consumer = broker.flatMap { broker in
            settings.messaging.map { messaging in
                DecreaseConsumer(
                    source: broker.source,
                    sink: broker.sink,
                    registry: registry,
                    eventLoop: eventLoop,
                    prefetch: messaging.prefetch,
                    maximumOrders: messaging.maximumOrders,
                    giveUpAfter: messaging.giveUpAfter,
                    // HTTP ends its requests first; both fit into the server's bound.
                    stopWithin: settings.server.shutdownTimeout / 2,
                    logger: logger
                ) { request, loop, completion in engine.decrease(request, on: loop, completion: completion) }
            }
        }

        let drain = ServerDrain()
        let publicRouter = ServerRouter(metrics: metrics)
        let services = ServiceGuard(tokens: settings.serviceTokens)
        publicRouter.add(middleware: ServiceRouteGuard(services, openReads: openReads))
        HealthRoutes(checks: checks(engine) + (consumer.map { [$0.healthCheck] } ?? []), drain: drain).register(on: publicRouter)
        OpenAPIDocument(openAPI).register(on: publicRouter)
        let trouble = DatabaseTrouble()
        publicRouter.add(middleware: trouble)
        CatalogRoutes(catalog: Catalog(store: store, engine: engine)).register(on: publicRouter)
        StockRoutes(engine: engine, store: store).register(on: publicRouter)

        let adminRouter = ServerAssembly.adminRouter(
            metrics: metrics,
            registry: registry,
            tokens: settings.server.adminTokens,
            services: .init(tokens: settings.serviceTokens, templates: [StockBatch.path])
        )
        adminRouter.add(middleware: trouble)
        StockAdminRoutes(engine: engine).register(on: adminRouter)
        StockBatchRoute(engine: engine).register(on: adminRouter)
        CircuitBreakerRoutes(registry: breakers).register(on: adminRouter)
        let hotPath = DecreaseHotPath(
            engine: engine,
            services: services,
            figures: metrics.figures(route: "/products/{id}/stock/decrease-by-order", method: "PATCH")
        )
        return Routes(
            publicRouter: publicRouter,
            adminRouter: adminRouter,
            hotPath: hotPath,
            registry: registry,
            drain: drain,
            transactions: TransactionWatch(registry: registry, logger: logger, look: oldestTransaction(engine.ledger.reads)),
            consumer: consumer
        )
    }

    /// What everybody who reaches the public port may read; all else there is for the shop's services.
    static let openReads: Set<String> = [
        "/livez", "/readyz", "/openapi.json", "/products", "/products/{id}", "/v1/products", "/v1/products/{id}",
    ]

    private static func oldestTransaction(_ pool: PostgresPool) -> @Sendable () async throws -> TransactionWatch.Oldest? {
        let ages = Mutex(TransactionAges())
        return {
            let transactions = try await pool.openTransactions()
            return ages.withLock { $0.saw(transactions, at: .now) }.map { .init(age: $0.age, who: $0.who) }
        }
    }

    private static func checks(_ engine: StockEngine) -> [HealthCheck] {
        [
            // Asked of the sessions that sell: another connection may well work while they do not. Where some lanes sell, this server is worth asking.
            HealthCheck("database") {
                let (selling, giving) = await engine.ledger.laneTroubles()
                let troubles = selling.compactMap(\.self)
                guard let first = troubles.first ?? giving else { return HealthReport(.up) }
                return HealthReport(
                    troubles.count == selling.count ? .down : .degraded,
                    detail: [
                        "reason": .string(String(describing: first)), "lanes": .int(Int64(selling.count)),
                        "lanesInTrouble": .int(Int64(troubles.count)), "canGiveBack": .bool(giving == nil),
                    ]
                )
            },
            // An open breaker is ready: the fallback serves.
            HealthCheck("redis", timeoutState: .degraded) {
                let snapshot = engine.breaker.snapshot()
                let foreign = engine.foreignProductCount
                let isUp = snapshot.state == .closed && foreign == 0
                let breaker = JSONValue.string(snapshot.state.rawValue)
                return HealthReport(
                    isUp ? .up : .degraded,
                    detail: foreign == 0 ? ["breaker": breaker] : ["breaker": breaker, "foreignProducts": .int(Int64(foreign))]
                )
            },
        ]
    }
}

/// Keeps the engine's background work going, and ends the engine last.
private struct EngineService: Service, CustomStringConvertible {
    let engine: StockEngine
    /// The engine has started: without its database there is nothing to sweep, to audit or to complain about.
    let started = Opening()
    var description: String { "engine" }

    func run() async throws {
        await cancelWhenGracefulShutdown {
            await started.wait()
            await engine.run()
        }
        await engine.shutdown()
    }
}

extension EngineEvent {
    /// One line each, with figures as metadata.
    func log(_ logger: Logger) {
        switch self {
        case .redisConnected(let dataset): logger.info("connected to Redis", metadata: ["dataset": "\(dataset)"])
        case .redisDisconnected(let why): logger.warning("connection to Redis ended", metadata: ["why": "\(why)"])
        case .recovered(let products, let direct, let took):
            logger.notice("recovered: Redis is exact", metadata: ["products": "\(products)", "direct": "\(direct)", "took": "\(took)"])
        case .redisFailed(let why): logger.warning("Redis fails", metadata: ["why": "\(why)"])
        case .leftDirect(let product, let why):
            logger.warning(
                "the product is sold without Redis until it can be installed",
                metadata: ["product": "\(product)", "why": "\(why)"]
            )
        case .gatedAgain(let product): logger.notice("the product is sold through Redis again", metadata: ["product": "\(product)"])
        case .untold(let count): logger.warning("more products have trouble than are named", metadata: ["lines": "\(count)"])
        case .recoveryFailed(let why): logger.warning("recovery failed", metadata: ["why": "\(why)"])
        case .resynced(let product, let fence, let stock):
            logger.debug("resynced", metadata: ["product": "\(product)", "fence": "\(fence)", "stock": "\(stock)"])
        case .resyncFailed(let product, let why):
            logger.warning("resync failed", metadata: ["product": "\(product)", "why": "\(why)"])
        case .swept(let product, let overdue):
            logger.warning("reservations overdue", metadata: ["product": "\(product)", "overdue": "\(overdue)"])
        case .auditFound(let product, let stock, let counter, let fence, let redisFence):
            logger.error(
                "audit: Redis and PostgreSQL differ",
                metadata: [
                    "product": "\(product)", "stock": "\(stock)", "counter": "\(counter.map(String.init) ?? "none")", "fence": "\(fence)",
                    "redisFence": "\(redisFence)",
                ]
            )
        case .productsLocked(let products):
            logger.warning(
                "rows of products are locked by another transaction; their requests are told LOCK_TIMEOUT",
                metadata: [
                    "products": "\(products.prefix(8).map(\.description).joined(separator: ","))", "count": "\(products.count)",
                ]
            )
        case .productUnlocked(let product, let after):
            logger.notice("the row of a product is free again", metadata: ["product": "\(product)", "after": "\(after)"])
        case .laneChanged(let lane, let why?):
            logger.warning("a lane of sales cannot use PostgreSQL", metadata: ["lane": "\(lane)", "why": "\(why)"])
        case .laneChanged(let lane, nil): logger.notice("a lane of sales uses PostgreSQL again", metadata: ["lane": "\(lane)"])
        case .redisRefuses(let why):
            logger.error("Redis refuses what is needed, and everything is sold without it", metadata: ["why": "\(why)"])
        case .foreignLedger(let product, let theirs, let ours):
            logger.error(
                "Redis holds another ledger's data: its products are sold without Redis until its keys sg:{…} are deleted, or this server has a Redis of its own",
                metadata: ["product": "\(product)", "theirs": "\(theirs)", "ours": "\(ours)"]
            )
        case .foreignLedgerGone: logger.notice("no other ledger's data is in Redis any more: it is used again")
        case .trouble(let what): logger.warning("\(what)")
        }
    }
}
