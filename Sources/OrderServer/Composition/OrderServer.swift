// The order server's composition root: this folder alone knows every concrete type.
//
//   OrderServer            the program
//   OrderServerConfiguration          what the environment sets
//   OrderServerParts       what a server that sells consists of: OrderGroups (the database), BrokerSide, ProductSide, and OrderFlows on top of them
//   OrderFollowerParts     what a server that follows consists of

import Logging
import MessageBroker
public import ServerKit

/// The order server: orders, their saga and its recovery, over HTTP.
public enum OrderServer {
    static let program = ServerProgram(
        name: "order-server",
        summary: "the order server: orders and their saga, in PostgreSQL, over the product server",
        read: { try OrderServerConfiguration(from: &$0) },
        server: { $0.server },
        run: { try await OrderServer.run($0) }
    )

    /// The program: reads the environment, runs, and ends the process with a status if that fails.
    public static func main() async { await program.main() }

    /// Runs until SIGTERM or SIGINT.
    public static func run(
        _ settings: OrderServerConfiguration,
        onReady: @escaping @Sendable (ServerAssembly.Ports) async -> Void = { _ in }
    ) async throws {
        try await self.run(settings, endpoints: nil, onReady: onReady)
    }

    /// As above, with other connections to the broker than those that the settings name.
    static func run(
        _ settings: OrderServerConfiguration,
        endpoints: MessageEndpoints?,
        onReady: @escaping @Sendable (ServerAssembly.Ports) async -> Void
    ) async throws {
        let logger = Logger(label: program.name)
        if settings.follows, let broker = settings.messaging?.broker {
            let onChange = BrokerEventSource.observer(logger)
            let parts = OrderFollowerParts(settings, logger: logger) { try BrokerEventSource(broker, start: $0, onChange: onChange) }
            return try await parts.assembly(logger: logger, onReady: onReady).run()
        }
        let group = ServerAssembly.eventLoopGroup(settings.server)
        let parts = try OrderServerParts(settings, group: group, logger: logger, endpoints: endpoints)
        try await parts.assembly(group, logger: logger, onReady: onReady).run()
    }
}
