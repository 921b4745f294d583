import APIErrors
import HTTPTypes
import Hummingbird
import Logging
import PostgresClient
import ServerKit
import ServerMetrics
import ServiceLifecycle
import StockContract
import StrictJSON

/// The parts of an order server that only shows orders: a replica in a database of its own, built from the stream of the orders' events. ``OrderServerParts``
/// has the parts of a server that sells.
struct OrderFollowerParts {
    /// The stream's name in the database of a replica.
    static let stream = StockGateTopology.orderEventsStream

    let settings: OrderServerConfiguration
    let publicRouter: ServerRouter
    let adminRouter: ServerRouter
    let registry = MetricsRegistry()
    let drain = ServerDrain()
    let prepared = PreparedLatch()
    let stores: StoresService
    let transactions: TransactionWatch
    let follow: FollowService

    /// - Parameter open: opens the stream
    init(
        _ settings: OrderServerConfiguration,
        follow followSettings: FollowService.Configuration = FollowService.Configuration(),
        logger: Logger,
        open: @escaping @Sendable (StreamStart) throws -> any OrderEventSource
    ) {
        self.settings = settings
        let registry = self.registry
        let http = HTTPMetrics(registry: registry)
        ProcessMetrics.register(in: registry)
        let pool = PostgresPool(configuration: settings.postgres, maximumConnections: settings.poolConnections)
        let store = OrderStore(pool: pool, recoveryAge: settings.recoveryAge)
        let readers = ReadStores(settings)
        readers.register(in: registry)
        transactions = TransactionWatch(readers.lists, registry: registry, logger: logger)
        let changes = OrderWatch(maximumWaiters: settings.maximumWaiters, store: store, logger: logger)
        changes.register(in: registry)
        registry.gauge("stockgate_orders_database_waiting", help: "Callers that wait for a connection of the pool") {
            Double(pool.snapshot().waiting)
        }
        let metrics = FollowMetrics(registry)
        follow = FollowService(
            settings: followSettings,
            store: FollowStore(pool: pool, stream: OrderFollowerParts.stream),
            changes: changes,
            metrics: metrics,
            prepared: prepared,
            logger: logger,
            open: open
        )

        let publicRouter = ServerRouter(metrics: http)
        let checks = [
            HealthCheck("database") { await store.isAnswering() ? HealthReport(.up) : HealthReport(.down) },
            HealthCheck("follow") { metrics.report() },
        ]
        HealthRoutes(checks: checks, drain: drain).register(on: publicRouter)
        OpenAPIDocument(PackageResources.openapi_json).register(on: publicRouter)
        OrderReadRoutes(store: readers.orders, changes: changes).register(on: publicRouter)
        OrderFollowerParts.refuseWrites(on: publicRouter)
        self.publicRouter = publicRouter
        adminRouter = ServerAssembly.adminRouter(metrics: http, registry: registry, tokens: settings.server.adminTokens)
        stores = StoresService {
            changes.shutdown()
            await pool.shutdown()
            await readers.shutdown()
        }
    }

    /// The server of these parts.
    func assembly(logger: Logger, onReady: @escaping @Sendable (ServerAssembly.Ports) async -> Void) -> ServerAssembly {
        let start = StartWait(timeout: settings.server.startTimeout, logger: logger)
        let postgres = settings.postgres
        return ServerAssembly(
            name: OrderServer.program.name,
            settings: settings.server,
            logger: logger,
            publicRouter: publicRouter,
            adminRouter: adminRouter,
            registry: registry,
            eventLoopGroup: ServerAssembly.eventLoopGroup(settings.server),
            services: [stores, transactions, follow],
            drain: drain,
            rereadables: settings.rereadables,
            prepare: {
                try await start.waitForPostgres(at: "ORDER_DATABASE_URL") {
                    _ = try await Migrator(configuration: postgres, lockWait: StartWait.lockWait).apply(OrderStore.migrations)
                    _ = try await Migrator(configuration: postgres, table: FollowStore.migrationsTable, lockWait: StartWait.lockWait)
                        .apply(FollowStore.migrations)
                }
            },
            prepared: prepared,
            onReady: onReady
        )
    }

    /// Answers writes to paths that have nothing to read: the path exists, but allows no method. Where there is a GET, the router does this.
    private static func refuseWrites(on router: ServerRouter) {
        for path in ["/orders/{id}/cancel", "/v1/orders/{id}/cancel", "/v2/orders"] {
            router.on(RouterPath(path), method: .post) { request, _ in
                var response = APIError(.methodNotAllowed, details: ["allowed": .array([])]).response(to: request)
                // The empty header says that no method is allowed (RFC 9110, section 10.2.1).
                response.headers[.allow] = ""
                return response
            }
        }
    }
}
