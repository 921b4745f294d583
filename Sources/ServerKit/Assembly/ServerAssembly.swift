import Glibc
import Hummingbird
import HummingbirdCore
import Logging
import NIOCore
import NIOPosix
import ServiceLifecycle
import Synchronization

/// One server process: stores and workers, a public and an admin port, on one group of event loops under one service group.
///
/// Services start in the order given, before HTTP, and are stopped in reverse: first no new connection is taken and the
/// requests in progress end, then the services. What has not ended after the settings' shutdown timeout is cancelled.
public struct ServerAssembly: Sendable {
    /// The ports that a running server has.
    public struct Ports: Sendable, Equatable {
        /// The public port.
        public let publicPort: Int
        /// The admin port.
        public let adminPort: Int
    }

    private let name: String
    private let settings: ServerSettings
    private let logger: Logger
    private let services: [any Service]
    private let publicServer: Application<RouterResponder<ServerRequestContext>>
    private let adminServer: Application<RouterResponder<ServerRequestContext>>
    private let prepare: @Sendable () async throws -> Void
    private let readiness: ServerReadiness

    /// Assembles a server; nothing runs before ``run()``.
    /// - Parameters:
    ///   - name: the program's name, for the log and the line at start
    ///   - publicRouter: the public port's routes
    ///   - adminRouter: the admin port's routes; its guard is for the caller to add first, see ``adminRouter(metrics:tokens:)``
    ///   - eventLoopGroup: what everything runs on; belongs to the caller
    ///   - services: stores first, workers behind them
    ///   - server: how the public port speaks; a handler of a hot path goes here
    ///   - prepare: what must be done when the services run and before a port is bound, such as migrations
    ///   - onReady: called once when both ports are bound
    public init(
        name: String,
        settings: ServerSettings,
        logger: Logger,
        publicRouter: ServerRouter,
        adminRouter: ServerRouter,
        eventLoopGroup: any EventLoopGroup = MultiThreadedEventLoopGroup.singleton,
        services: [any Service] = [],
        server: HTTPServerBuilder? = nil,
        prepare: @escaping @Sendable () async throws -> Void = {},
        onReady: @escaping @Sendable (Ports) async -> Void = { _ in }
    ) {
        self.name = name
        self.settings = settings
        self.logger = logger
        self.services = services
        self.prepare = prepare
        let readiness = ServerReadiness { ports in
            // The one line that scripts wait for. Standard output has nothing else.
            ServerAssembly.printLine(
                "\(name) ready: public \(settings.bindAddress):\(ports.publicPort), admin \(settings.bindAddress):\(ports.adminPort)"
            )
            await onReady(ports)
        }
        self.readiness = readiness
        self.publicServer = Application(
            responder: publicRouter.buildResponder(),
            server: server ?? .loopBoundHTTP1(idleTimeout: settings.idleTimeout),
            configuration: .init(
                address: .hostname(settings.bindAddress, port: settings.publicPort),
                backlog: 4096,
                availableConnectionsDelegate: MaximumAvailableConnections(settings.maximumConnections)
            ),
            onServerRunning: { channel in await readiness.bound(public: channel.localAddress?.port ?? settings.publicPort) },
            eventLoopGroupProvider: .shared(eventLoopGroup),
            logger: logger
        )
        self.adminServer = Application(
            responder: adminRouter.buildResponder(),
            server: .loopBoundHTTP1(idleTimeout: settings.idleTimeout),
            configuration: .init(
                address: .hostname(settings.bindAddress, port: settings.adminPort),
                availableConnectionsDelegate: MaximumAvailableConnections(256)
            ),
            onServerRunning: { channel in await readiness.bound(admin: channel.localAddress?.port ?? settings.adminPort) },
            eventLoopGroupProvider: .shared(eventLoopGroup),
            logger: logger
        )
    }

    /// An admin router with its guard in front, `/metrics` on it, and the page that shows them.
    public static func adminRouter(metrics: HTTPMetrics, registry: MetricsRegistry, tokens: AdminTokens) -> ServerRouter {
        let router = ServerRouter(metrics: metrics)
        Dashboard(tokens: tokens).register(on: router)
        router.add(middleware: AdminGuard(tokens: tokens))
        registry.register(on: router)
        return router
    }

    /// A group of as many event loops as the settings say.
    public static func eventLoopGroup(_ settings: ServerSettings) -> MultiThreadedEventLoopGroup {
        settings.eventLoops == 0
            ? .singleton : MultiThreadedEventLoopGroup(numberOfThreads: settings.eventLoops)
    }

    /// Runs until SIGTERM or SIGINT, or until a service fails.
    /// - Throws: what a service or the binding of a port has failed with
    public func run() async throws {
        // A peer that went away must fail a write, not the process.
        signal(SIGPIPE, SIG_IGN)
        var configuration = ServiceGroupConfiguration(
            services: self.services.map { ServiceGroupConfiguration.ServiceConfiguration(service: $0) } + [
                .init(service: HTTPService(prepare: self.prepare, servers: [self.adminServer, self.publicServer]))
            ],
            gracefulShutdownSignals: [.sigterm, .sigint],
            logger: self.logger
        )
        configuration.maximumGracefulShutdownDuration = self.settings.shutdownTimeout
        configuration.maximumCancellationDuration = self.settings.shutdownTimeout
        try await ServiceGroup(configuration: configuration).run()
        self.logger.info("\(self.name) stopped")
    }

    private static func printLine(_ line: String) {
        let bytes = Array((line + "\n").utf8)
        _ = bytes.withUnsafeBytes { Glibc.write(STDOUT_FILENO, $0.baseAddress, $0.count) }
    }
}

/// Both ports: prepares, then serves until the shutdown.
private struct HTTPService: Service, CustomStringConvertible {
    let prepare: @Sendable () async throws -> Void
    let servers: [any Service]

    var description: String { "HTTP" }

    func run() async throws {
        do {
            // A stop during the preparation ends it; the ports are then never bound.
            try await cancelWhenGracefulShutdown { try await self.prepare() }
        } catch is CancellationError {
            return
        }
        if Task.isShuttingDownGracefully { return }
        try await withThrowingTaskGroup(of: Void.self) { group in
            for server in self.servers { group.addTask { try await server.run() } }
            // Not `waitForAll`, which waits for the others before it throws: one that fails, such as by a port that is taken,
            // must end the other at once.
            while try await group.next() != nil {}
        }
    }
}

/// Waits for both ports to be bound.
private final class ServerReadiness: Sendable {
    private let ports = Mutex<(publicPort: Int?, adminPort: Int?)>((nil, nil))
    private let onReady: @Sendable (ServerAssembly.Ports) async -> Void

    init(onReady: @escaping @Sendable (ServerAssembly.Ports) async -> Void) {
        self.onReady = onReady
    }

    func bound(public port: Int) async {
        await self.bound { $0.publicPort = port }
    }

    func bound(admin port: Int) async {
        await self.bound { $0.adminPort = port }
    }

    private func bound(_ note: (inout sending (publicPort: Int?, adminPort: Int?)) -> Void) async {
        let ports: ServerAssembly.Ports? = self.ports.withLock { ports in
            note(&ports)
            guard let publicPort = ports.publicPort, let adminPort = ports.adminPort else { return nil }
            return ServerAssembly.Ports(publicPort: publicPort, adminPort: adminPort)
        }
        if let ports { await self.onReady(ports) }
    }
}
