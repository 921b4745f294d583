import NIOPosix

extension Sale {
    /// Holds a sale on the servers of a stack of this machine, audited from its stores, without a story.
    /// - Parameters:
    ///   - settings: all but the addresses, which are the stack's.
    ///   - environment: what the stack's script prints for `env`.
    ///   - interruption: ends the sale early, in order.
    /// - Throws: `PlanError` for an address that is not there, and what `run()` throws.
    public static func hold(
        _ settings: SaleConfiguration,
        on stack: StackScript,
        _ environment: [String: String],
        interruption: Interruption = Interruption()
    ) async throws -> SaleResult {
        func setting(_ name: String) throws -> String {
            guard let value = environment[name] else { throw PlanError("\(name) is not set: scripts/stack env prints it") }
            return value
        }
        let group = MultiThreadedEventLoopGroup.singleton
        var settings = settings
        settings.gateway = try setting("GATEWAY_URL")
        settings.productServer = "http://127.0.0.1:\(try setting("PRODUCT_PORT"))"
        settings.productAdmin = try setting("PRODUCT_ADMIN_URL")
        settings.adminToken = environment["ADMIN_TOKEN"].flatMap { $0.isEmpty ? nil : $0 }
        let reader = try StoreReader(
            productDatabase: try setting("PRODUCT_DATABASE_URL"),
            orderDatabase: try setting("ORDER_DATABASE_URL"),
            redisURL: try setting("REDIS_URL"),
            eventLoopGroup: group
        )
        let sale = Sale(
            settings: settings,
            tools: FaultTools(stack: stack, eventLoopGroup: group),
            basis: .stores(reader),
            console: Console(isTerminal: false, isQuiet: true) { _ in },
            eventLoop: group.next(),
            interruption: interruption
        )
        do {
            let result = try await sale.run()
            await reader.close()
            return result
        } catch {
            await reader.close()
            throw error
        }
    }
}
