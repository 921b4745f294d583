// The composition of a server that follows: what `OrderServerParts` is for one that sells.

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

/// An order server that only shows orders: a replica in a database of its own, made from the stream of the orders' events.
struct OrderFollower {
    /// The stream's name in the database of a replica.
    static let stream = StockGateTopology.orderEventsStream

    let publicRouter: ServerRouter
    let adminRouter: ServerRouter
    let registry = MetricsRegistry()
    let drain = ServerDrain()
    let stores: StoresService
    let transactions: TransactionWatch
    let follow: FollowService

    /// - Parameter open: opens the stream
    init(
        _ settings: OrderSettings,
        follow followSettings: FollowService.Settings = FollowService.Settings(),
        logger: Logger,
        open: @escaping @Sendable (StreamStart) throws -> any OrderEventSource
    ) {
        let registry = self.registry
        let metrics = HTTPMetrics(registry: registry)
        ProcessMetrics.register(in: registry)
        let pool = PostgresPool(configuration: settings.postgres, maximumConnections: settings.poolConnections)
        let store = OrderStore(pool: pool, recoveryAge: settings.recoveryAge)
        let readers = ReadStores(settings)
        readers.register(in: registry)
        self.transactions = readers.transactions(registry, logger)
        let changes = OrderChanges(maximumWaiters: settings.maximumWaiters, store: store, logger: logger)
        changes.register(in: registry)
        registry.gauge("orders_database_waiting", help: "Callers that wait for a connection of the pool") { Double(pool.figures().waiting) }
        let figures = FollowFigures(registry)
        self.follow = FollowService(
            settings: followSettings,
            store: FollowStore(pool: pool, stream: OrderFollower.stream),
            changes: changes,
            figures: figures,
            logger: logger,
            open: open
        )

        let publicRouter = ServerRouter(metrics: metrics)
        let checks = [
            HealthCheck("database") { await store.isAnswering() ? HealthReport(.up) : HealthReport(.down) },
            HealthCheck("follow") { figures.report() },
        ]
        HealthRoutes(checks: checks, drain: self.drain).register(on: publicRouter)
        OpenAPIDocument(PackageResources.openapi_json).register(on: publicRouter)
        OrderReadRoutes(store: readers.orders, changes: changes).register(on: publicRouter)
        OrderFollower.refuseWrites(on: publicRouter)
        self.publicRouter = publicRouter
        self.adminRouter = ServerAssembly.adminRouter(metrics: metrics, registry: registry, tokens: settings.server.adminTokens)
        self.stores = StoresService {
            changes.shutdown()
            await pool.shutdown()
            await readers.shutdown()
        }
    }

    /// Runs until SIGTERM or SIGINT.
    static func run(
        _ settings: OrderSettings,
        follow followSettings: FollowService.Settings = FollowService.Settings(),
        logger: Logger,
        open: @escaping @Sendable (StreamStart) throws -> any OrderEventSource,
        onReady: @escaping @Sendable (ServerAssembly.Ports) async -> Void
    ) async throws {
        let follower = OrderFollower(settings, follow: followSettings, logger: logger, open: open)
        let postgres = settings.postgres
        let follow = follower.follow
        let start = StartWait(timeout: settings.server.startTimeout, logger: logger)
        try await ServerAssembly(
            name: OrderServer.program,
            settings: settings.server,
            logger: logger,
            publicRouter: follower.publicRouter,
            adminRouter: follower.adminRouter,
            registry: follower.registry,
            eventLoopGroup: ServerAssembly.eventLoopGroup(settings.server),
            services: [follower.stores, follower.transactions, follow],
            drain: follower.drain,
            rereadables: settings.rereadables,
            prepare: {
                try await start.waitForOrders {
                    _ = try await Migrator(configuration: postgres).apply(OrderStore.migrations)
                    _ = try await Migrator(configuration: postgres, table: FollowStore.migrationsTable).apply(FollowStore.migrations)
                }
                follow.begin()
            },
            onReady: onReady
        ).run()
    }

    /// Paths that have nothing to read are there all the same, with no method allowed. Where there is a GET, the router names it.
    private static func refuseWrites(on router: ServerRouter) {
        for path in ["/orders/{id}/cancel", "/v1/orders/{id}/cancel", "/v2/orders"] {
            router.on(RouterPath(path), method: .post) { request, _ in
                var response = APIError(.methodNotAllowed, details: ["allowed": .array([])]).response(to: request)
                // Empty: no method at all (RFC 9110, section 10.2.1).
                response.headers[.allow] = ""
                return response
            }
        }
    }
}

extension OrderChanges {
    /// Adds what waiting has to show.
    func register(in registry: MetricsRegistry) {
        registry.gauge("orders_watched", help: "Requests that wait for an order and streams of an order's changes") { [self] in
            Double(self.places)
        }
        let counters = [
            ("orders_watch_lookups_total", "Statements that looked for changes of orders waited for", self.lookups),
            ("orders_watch_failed_lookups_total", "Such statements that failed", self.failedLookups),
            ("orders_watch_refused_total", "Requests to wait that were OVERLOADED", self.refused),
        ]
        for (name, help, counter) in counters {
            registry.collector(name, help: help, kind: .counter) { [.init(Double(counter.value))] }
        }
    }
}
