import Glibc
public import HotPath
import Hummingbird
import HummingbirdCore
public import Logging
public import ServerMetrics
public import NIOCore
public import NIOPosix
import NIOTransportSecurity
public import ServiceLifecycle
import UnixSignals

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

    /// What a port does for whoever asks it, beside its routes.
    public struct PortRules: Sendable {
        /// Bytes of a body at most, by path, for the routes that take more than 64 KiB. More is answered 413, whatever the route does with
        /// a body.
        public var largerBodies: [String: Int]
        /// The paths that are answered while the port has too many connections: `true` for those that keep their connection.
        public var reservedPaths: [String: Bool]

        /// Makes the rules.
        public init(largerBodies: [String: Int] = [:], reservedPaths: [String: Bool]) {
            self.largerBodies = largerBodies
            self.reservedPaths = reservedPaths
        }

        /// A public port: health is always answered.
        public static let publicPort = PortRules(reservedPaths: ["/livez": false, "/readyz": false, "/health_check": false])
        /// An admin port: the metrics are always answered.
        public static let adminPort = PortRules(reservedPaths: ["/metrics": false])
    }

    /// Connections of the admin port at most.
    private static let maximumAdminConnections = 256

    private let name: String
    private let settings: ServerConfiguration
    private let logger: Logger
    private let services: [any Service]
    private let publicServer: Application<ServerResponder>
    private let adminServer: Application<ServerResponder>
    private let prepare: @Sendable () async throws -> Void
    private let prepared: PreparedLatch
    private let readiness: ServerReadiness
    private let drain: ServerDrain
    private let eventLoopGroup: any EventLoopGroup
    private let connections: [ConnectionLimits]
    private let rereadables: [any Rereadable]

    /// Assembles a server; nothing runs before ``run()``.
    /// - Parameters:
    ///   - name: the program's name, for the log and the line at start
    ///   - publicRouter: the public port's routes
    ///   - adminRouter: the admin port's routes, behind their guard
    ///   - registry: shows what the front doors count
    ///   - eventLoopGroup: what everything runs on; belongs to the caller
    ///   - services: stores first, workers after them
    ///   - hotPath: answers its requests of the public port in front of the router
    ///   - adminHotPath: answers its requests of the admin port in front of the router, and admits their callers itself
    ///   - publicRules: what the public port does beside its routes
    ///   - adminRules: what the admin port does beside its routes
    ///   - drain: begins when the server has been told to stop
    ///   - rereadables: what SIGHUP reads again
    ///   - prepare: what must be done when the services run and before a port is bound, such as migrations
    ///   - prepared: opened after `prepare`: services that need what it does wait for it
    ///   - onReady: called once when both ports are bound
    public init(
        name: String,
        settings: ServerConfiguration,
        logger: Logger,
        publicRouter: ServerRouter,
        adminRouter: ServerRouter,
        registry: MetricsRegistry = MetricsRegistry(),
        eventLoopGroup: any EventLoopGroup = MultiThreadedEventLoopGroup.singleton,
        services: [any Service] = [],
        hotPath: any HotPathEndpoint = NoHotPath(),
        adminHotPath: any HotPathEndpoint = NoHotPath(),
        publicRules: PortRules = .publicPort,
        adminRules: PortRules = .adminPort,
        drain: ServerDrain = ServerDrain(),
        rereadables: [any Rereadable] = [],
        prepare: @escaping @Sendable () async throws -> Void = {},
        prepared: PreparedLatch = PreparedLatch(),
        onReady: @escaping @Sendable (Ports) async -> Void = { _ in }
    ) {
        self.name = name
        self.settings = settings
        self.logger = logger
        self.services = services
        self.prepare = prepare
        self.prepared = prepared
        self.rereadables = rereadables
        let readiness = ServerReadiness { ports in
            // The one line that scripts wait for. Standard output has nothing else.
            ServerAssembly.printLine(
                "\(name) ready: public \(settings.bindAddress):\(ports.publicPort), admin \(settings.bindAddress):\(ports.adminPort)"
            )
            await onReady(ports)
        }
        self.readiness = readiness
        self.drain = drain
        self.eventLoopGroup = eventLoopGroup
        let perAddress = settings.maximumConnectionsPerAddress
        let publicDoor = Door(
            "public",
            settings,
            publicRules,
            .init(maximum: settings.maximumConnections, maximumPerAddress: perAddress),
            drain,
            registry
        )
        let adminMaximum = ServerAssembly.maximumAdminConnections
        let adminDoor = Door(
            "admin",
            settings,
            adminRules,
            // The gateway, the other server and an operator may share an address, so each address may have all ordinary places. Of the reserve behind them an
            // address has a part only: whoever takes that again and again leaves the rest to the other callers of the reserved routes.
            .init(maximum: adminMaximum, maximumPerAddress: adminMaximum),
            drain,
            registry
        )
        self.connections = [publicDoor.connections, adminDoor.connections]
        registry.collector(
            "stockgate_log_lines_dropped_total",
            help: "Lines of the log that were dropped because nobody read the log.",
            kind: .counter
        ) { [.init(Double(LogOutput.standardError.dropped))] }
        if let tls = settings.tls {
            registry.gauge(
                "stockgate_tls_certificate_expires_timestamp_seconds",
                help: "When the certificate of both ports ends, in seconds since 1970."
            ) { Double(tls.expires) }
        }
        publicServer = Application(
            responder: publicRouter.buildResponder(),
            server: .frontDoor(hotPath, configuration: publicDoor.configuration, connections: publicDoor.connections),
            configuration: .init(address: .hostname(settings.bindAddress, port: settings.publicPort), backlog: 4096),
            onServerRunning: { channel in
                await readiness.bound(channel, publicDoor.metrics, public: channel.localAddress?.port ?? settings.publicPort)
            },
            eventLoopGroupProvider: .shared(eventLoopGroup),
            logger: logger
        )
        adminServer = Application(
            responder: adminRouter.buildResponder(),
            server: .frontDoor(adminHotPath, configuration: adminDoor.configuration, connections: adminDoor.connections),
            configuration: .init(address: .hostname(settings.bindAddress, port: settings.adminPort)),
            onServerRunning: { channel in
                await readiness.bound(channel, adminDoor.metrics, admin: channel.localAddress?.port ?? settings.adminPort)
            },
            eventLoopGroupProvider: .shared(eventLoopGroup),
            logger: logger
        )
    }

    /// An admin router with its guard in front, `/metrics` on it, and the page that shows them.
    public static func adminRouter(
        metrics: HTTPMetrics,
        registry: MetricsRegistry,
        tokens: AdminTokens,
        services: AdminGuard.Services? = nil
    ) -> ServerRouter {
        let router = ServerRouter(metrics: metrics)
        Dashboard(tokens: tokens).register(on: router)
        router.add(middleware: AdminGuard(tokens: tokens, services: services))
        registry.register(on: router)
        return router
    }

    /// A group of as many event loops as the settings say.
    public static func eventLoopGroup(_ settings: ServerConfiguration) -> MultiThreadedEventLoopGroup {
        settings.eventLoops == 0
            ? .singleton : MultiThreadedEventLoopGroup(numberOfThreads: settings.eventLoops)
    }

    /// Runs until SIGTERM or SIGINT, or until a service fails. SIGHUP reads files of secrets again. A stop that does not end within twice the settings' shutdown timeout ends the process with status 1.
    /// - Throws: what a service or the binding of a port has failed with
    public func run() async throws {
        // Without this, a write to a peer that has gone away ends the process. With it the write fails.
        signal(SIGPIPE, SIG_IGN)
        let hangups = HangupWatch(rereadables, logger: self.logger)
        defer { hangups.shutdown() }
        raiseDescriptorLimit()
        let watchdog = StopWatchdog(limit: settings.shutdownTimeout * 2, logger: self.logger)
        defer { watchdog.shutdown() }
        let http = HTTPService(
            prepare: self.prepare,
            prepared: self.prepared,
            servers: [adminServer, publicServer],
            drain: self.drain,
            lameDuck: settings.lameDuck,
            connections: self.connections,
            readiness: self.readiness,
            eventLoopGroup: self.eventLoopGroup,
            logger: self.logger
        )
        var configuration = ServiceGroupConfiguration(
            services: (self.services + [http, watchdog]).map { ServiceGroupConfiguration.ServiceConfiguration(service: $0) },
            gracefulShutdownSignals: [.sigterm, .sigint],
            logger: self.logger
        )
        // A group that has run out of time cancels what is left, and waits for it without a bound. The watchdog bounds that wait.
        configuration.maximumGracefulShutdownDuration = settings.shutdownTimeout
        try await ServiceGroup(configuration: configuration).run()
        self.logger.info("\(name) stopped")
    }

    /// Lets the process have as many descriptors as it may, and says so if these are fewer than its connections need.
    private func raiseDescriptorLimit() {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
        if limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max
            _ = setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        }
        // 256 descriptors are for databases, the broker, timers and loops.
        let needed = connections.reduce(256) { $0 + $1.bounds.maximum + $1.bounds.reserve }
        guard limit.rlim_cur < UInt(needed) else { return }
        logger.warning(
            "MAX_CONNECTIONS exceeds the descriptors that the process may have: further connections are not accepted",
            metadata: ["descriptors": "\(limit.rlim_cur)", "needed": "\(needed)"]
        )
    }

    private static func printLine(_ line: String) {
        let bytes = Array((line + "\n").utf8)
        _ = bytes.withUnsafeBytes { Glibc.write(STDOUT_FILENO, $0.baseAddress, $0.count) }
    }
}
