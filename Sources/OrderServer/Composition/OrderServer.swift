// The composition root: the only place of this server that knows every concrete type.

import Glibc
import Logging
import MessageBroker
import NIOPosix
import PostgresClient
public import ServerKit
import ServerMetrics
import ServiceLifecycle
import StockContract
import StrictJSON

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
        let groups = parts.groups
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
                await groups.connect()
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
