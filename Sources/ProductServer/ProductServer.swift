// The composition root: the only place of this server that knows every concrete type.

import CircuitBreaker
import Hummingbird
import Logging
import NIOPosix
import PostgresClient
import ServerKit
import ServiceLifecycle
import StockGate

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
    }

    /// Runs until SIGTERM or SIGINT.
    public static func run(_ settings: ProductSettings, onReady: @escaping @Sendable (ServerAssembly.Ports) async -> Void = { _ in })
        async throws
    {
        let logger = Logger(label: "product-server")
        let group = ServerAssembly.eventLoopGroup(settings.server)
        let engine = try StockEngine(settings.engine, eventLoopGroup: group) { event in event.log(logger) }
        let routes = try routes(settings, engine)
        let postgres = settings.engine.ledger.postgres
        try await ServerAssembly(
            name: "product-server",
            settings: settings.server,
            logger: logger,
            publicRouter: routes.publicRouter,
            adminRouter: routes.adminRouter,
            eventLoopGroup: group,
            services: [EngineService(engine: engine)],
            server: .loopBoundHTTP1(idleTimeout: settings.server.idleTimeout, hotPath: routes.hotPath),
            prepare: {
                _ = try await Migrator(configuration: postgres).apply(migrations)
                try await engine.start()
            },
            onReady: onReady
        ).run()
    }

    /// The ledger's schema first: the catalogue stands on it.
    static var migrations: [Migration] {
        LedgerMigrations.all.map { Migration(version: $0.version, name: $0.name, sql: $0.sql) } + [
            Migration(version: 100, name: "catalog", sql: String(decoding: PackageResources.V100_catalog_sql, as: UTF8.self))
        ]
    }

    /// The OpenAPI 3.1 document that is served.
    static var openAPI: [UInt8] { PackageResources.openapi_json }

    static func routes(_ settings: ProductSettings, _ engine: StockEngine) throws -> Routes {
        let breakers = CircuitBreakerRegistry()
        try breakers.add(engine.breaker)
        let registry = MetricsRegistry()
        let metrics = HTTPMetrics(registry: registry)
        ProcessMetrics.register(in: registry)
        registry.register(engine)
        CircuitBreakerMetrics.register(breakers, in: registry, resilience4j: settings.server.showsResilience4jMetrics)
        let store = CatalogStore(pool: engine.ledger.pool)

        let publicRouter = ServerRouter(metrics: metrics)
        HealthRoutes(checks: checks(engine)).register(on: publicRouter)
        OpenAPIDocument(openAPI).register(on: publicRouter)
        CatalogRoutes(catalog: Catalog(store: store, engine: engine)).register(on: publicRouter)
        StockRoutes(engine: engine, store: store).register(on: publicRouter)

        let adminRouter = ServerAssembly.adminRouter(metrics: metrics, registry: registry, tokens: settings.server.adminTokens)
        StockAdminRoutes(engine: engine).register(on: adminRouter)
        StockBatchRoute(engine: engine).register(on: adminRouter)
        CircuitBreakerRoutes(registry: breakers).register(on: adminRouter)
        let hotPath = DecreaseHotPath(
            engine: engine,
            figures: metrics.figures(route: "/products/{id}/stock/decrease-by-order", method: "PATCH")
        )
        return Routes(publicRouter: publicRouter, adminRouter: adminRouter, hotPath: hotPath)
    }

    private static func checks(_ engine: StockEngine) -> [HealthCheck] {
        [
            HealthCheck("database") {
                do {
                    _ = try await engine.ledger.pool.query("select 1")
                    return HealthReport(.up)
                } catch {
                    return HealthReport(.down, detail: ["reason": .string(String(describing: error))])
                }
            },
            // An open breaker is ready: the fallback serves.
            HealthCheck("redis", timeoutState: .degraded) {
                let snapshot = engine.breaker.snapshot()
                let isUp = snapshot.state == .closed
                return HealthReport(isUp ? .up : .degraded, detail: ["breaker": .string(snapshot.state.rawValue)])
            },
        ]
    }
}

/// Keeps the engine's background work going, and ends the engine last.
private struct EngineService: Service, CustomStringConvertible {
    let engine: StockEngine
    var description: String { "engine" }

    func run() async throws {
        await cancelWhenGracefulShutdown { await engine.run() }
        await engine.shutDown()
    }
}

extension EngineEvent {
    /// One line each, with figures as metadata.
    func log(_ logger: Logger) {
        switch self {
        case .redisConnected(let dataset): logger.info("connected to Redis", metadata: ["dataset": "\(dataset)"])
        case .redisDisconnected(let why): logger.warning("connection to Redis ended", metadata: ["why": "\(why)"])
        case .recovered(let products, let took):
            logger.notice("recovered: Redis is exact", metadata: ["products": "\(products)", "took": "\(took)"])
        case .recoveryFailed(let why): logger.warning("recovery failed", metadata: ["why": "\(why)"])
        case .resynced(let product, let fence, let stock):
            logger.debug("resynced", metadata: ["product": "\(product)", "fence": "\(fence)", "stock": "\(stock)"])
        case .resyncFailed(let product): logger.warning("resync failed", metadata: ["product": "\(product)"])
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
        case .trouble(let what): logger.warning("\(what)")
        }
    }
}
