// The product server's composition root: this folder alone knows every concrete type.
//
//   ProductServer                the program
//   ProductServerConfiguration   what the environment sets
//   ProductServerParts           what a product server consists of, on top of one engine and BrokerConnections

import Logging
import NIOPosix
import PostgresClient
public import ServerKit
import StockContract
import StockGate

/// The product server: catalogue, stock, breaker, over HTTP.
public enum ProductServer {
    static let program = ServerProgram(
        name: "product-server",
        summary: "the product server: catalogue, stock through Redis, ledger in PostgreSQL",
        read: { try ProductServerConfiguration(from: &$0) },
        server: { $0.server },
        run: { try await ProductServer.run($0) },
        commands: [
            .init(
                name: "restore-check",
                summary:
                    "after a backup of the database was restored: compares Redis with the ledger, mends Redis, and prints what was found; status 0: all is right now, 3: some products are not, 1: it could not be done",
                run: { try await ProductServer.checkRestore($0) { print($0) } }
            )
        ]
    )

    /// The program: reads the environment, runs, and ends the process with a status if that fails.
    public static func main() async { await program.main() }

    /// Runs until SIGTERM or SIGINT.
    public static func run(
        _ settings: ProductServerConfiguration,
        onReady: @escaping @Sendable (ServerAssembly.Ports) async -> Void = { _ in }
    ) async throws {
        let logger = Logger(label: program.name)
        let group = ServerAssembly.eventLoopGroup(settings.server)
        let engine = try StockEngine(settings.engine, eventLoopGroup: group) { event in event.log(logger) }
        let broker = try settings.messaging.map { try BrokerConnections($0, cell: settings.ids?.name, logger) }
        let parts = try ProductServerParts(settings, engine, broker: broker, eventLoop: group.next(), logger: logger)
        try await parts.assembly(group, logger: logger, onReady: onReady).run()
    }

    /// The exit status of the command `restore-check` where products are left that an operator must look at.
    static let restoreCheckLeft: Int32 = 3

    /// Compares Redis with the ledger for every gated product, mends Redis, and says one line for each product that differed, and one at the end. Servers may go on
    /// selling meanwhile.
    ///
    /// - Returns: the exit status: 0 if Redis is right for every product now, else ``restoreCheckLeft``
    static func checkRestore(_ settings: ProductServerConfiguration, say: @Sendable (String) -> Void) async throws -> Int32 {
        let logger = Logger(label: program.name)
        let engine = try StockEngine(settings.engine, eventLoopGroup: ServerAssembly.eventLoopGroup(settings.server)) { event in
            event.log(logger)
        }
        do {
            // A backup may be of a version before.
            _ = try await Migrator(configuration: settings.engine.ledger.postgres).apply(migrations)
            let (products, findings) = try await engine.restoreCheck()
            for finding in findings { say(finding.line) }
            let left = findings.count { !$0.isMended }
            let ahead = findings.count { $0.difference == .redisAhead }
            say(
                "\(products) products: \(findings.count) differed, in \(ahead) of them Redis was ahead of the ledger; \(left) are not mended"
            )
            await engine.shutdown()
            return left == 0 ? 0 : restoreCheckLeft
        } catch {
            await engine.shutdown()
            throw error
        }
    }

    /// The ledger's schema comes first, because the catalogue's tables refer to it.
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
}
