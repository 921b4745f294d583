// The composition root: the only place of this server that knows every concrete type.

import CircuitBreaker
import Glibc
import Logging
import NIOPosix
import PostgresClient
import ServerKit
import ServiceLifecycle

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
        do {
            var reader = SettingsReader()
            let settings = try OrderSettings(from: &reader)
            ServerLogHandler.bootstrap(level: settings.server.logLevel, format: settings.server.logFormat)
            Logger(label: self.program).info("starting", metadata: ["settings": "\(reader.givenText)"])
            try await self.run(settings)
        } catch {
            ServerLogHandler.writeToStandardError(Array("\(self.program): \(error)\n".utf8))
            exit(1)
        }
    }

    /// Runs until SIGTERM or SIGINT.
    public static func run(
        _ settings: OrderSettings,
        onReady: @escaping @Sendable (ServerAssembly.Ports) async -> Void = { _ in }
    ) async throws {
        let logger = Logger(label: self.program)
        let group = ServerAssembly.eventLoopGroup(settings.server)
        let parts = try OrderServerParts(settings, group: group, logger: logger)
        let postgres = settings.postgres
        let recovery = parts.recovery
        try await ServerAssembly(
            name: self.program,
            settings: settings.server,
            logger: logger,
            publicRouter: parts.publicRouter,
            adminRouter: parts.adminRouter,
            eventLoopGroup: group,
            services: [parts.stores, recovery],
            prepare: {
                _ = try await Migrator(configuration: postgres).apply(OrderStore.migrations)
                recovery.begin()
            },
            onReady: onReady
        ).run()
    }
}

/// Everything that one order server consists of.
struct OrderServerParts {
    let publicRouter: ServerRouter
    let adminRouter: ServerRouter
    let stores: StoresService
    let recovery: RecoveryService
    let flow: OrderFlow

    init(_ settings: OrderSettings, group: MultiThreadedEventLoopGroup, logger: Logger) throws {
        let registry = MetricsRegistry()
        let metrics = HTTPMetrics(registry: registry)
        ProcessMetrics.register(in: registry)
        let figures = OrderFigures(registry)

        let pool = PostgresPool(configuration: settings.postgres, maximumConnections: settings.poolConnections)
        let insertion = try OrderInsertion(
            configuration: settings.groupPostgres,
            maximumQueued: settings.maximumQueued,
            maximumBatch: settings.maximumBatch,
            batches: figures.insertBatches
        )
        let completion = try OrderCompletion(
            configuration: settings.groupPostgres,
            maximumQueued: settings.maximumQueued,
            maximumBatch: settings.maximumBatch,
            batches: figures.completionBatches
        )
        let keys = try KeyLookup(
            configuration: settings.groupPostgres,
            maximumQueued: settings.maximumQueued,
            maximumBatch: settings.maximumBatch
        )
        let store = OrderStore(pool: pool, recoveryAge: settings.recoveryAge)

        let loop = group.next()
        let publicPeers = HTTPPeers(settings.productServers, loop: loop)
        let batchPeers = settings.internalServers.isEmpty ? nil : HTTPPeers(settings.internalServers, loop: loop)
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
                token: batchPeers == nil ? nil : settings.token
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
            logger: logger
        )
        self.flow = flow

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
        HealthRoutes(checks: [
            HealthCheck("database") { await store.isAnswering() ? HealthReport(.up) : HealthReport(.down) },
            // Without the product server this server still shows and keeps orders.
            HealthCheck("productServer", timeoutState: .degraded) {
                let state = breaker.state
                return HealthReport(state == .closed ? .up : .degraded, detail: ["breaker": .string(state.rawValue)])
            },
        ]).register(on: publicRouter)
        OpenAPIDocument(PackageResources.openapi_json).register(on: publicRouter)
        OrderRoutes(flow: flow, store: store).register(on: publicRouter)
        UserOrderRoutes(
            flow: flow,
            store: store,
            catalogue: ProductCatalogue(peers: publicPeers, timeout: settings.callTimeout),
            checksUnitPrice: settings.checksUnitPrice
        ).register(on: publicRouter)
        self.publicRouter = publicRouter

        let adminRouter = ServerAssembly.adminRouter(metrics: metrics, registry: registry, tokens: settings.server.adminTokens)
        InternalRoutes(flow: flow).register(on: adminRouter)
        CircuitBreakerRoutes(registry: breakers).register(on: adminRouter)
        self.adminRouter = adminRouter

        self.stores = StoresService {
            await insertion.shutdown()
            await completion.shutdown()
            await keys.shutdown()
            await pool.shutdown()
            publicPeers.close()
            batchPeers?.close()
            breakers.shutdown()
        }
        self.recovery = RecoveryService(settings: settings.recovery, flow: flow, store: store, logger: logger)
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
