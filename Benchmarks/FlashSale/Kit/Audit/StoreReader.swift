public import NIOCore
import PostgresClient
import RedisClient

/// The audit's own connections: one to each database, one to Redis. Reads alone.
public struct StoreReader: AuditSource {
    private let products: PostgresConnection
    private let orders: PostgresConnection
    private let redis: Redis

    /// The product server's Redis, of one server or of many.
    private enum Redis {
        case one(RedisClient)
        case cluster(RedisCluster)
    }

    /// - Parameters:
    ///   - productDatabase: connection string of the product server's database.
    ///   - orderDatabase: connection string of the order server's database.
    ///   - redisURL: of the product server's Redis.
    /// - Throws: `PlanError` that names the setting which cannot be read, never its content.
    public init(productDatabase: String, orderDatabase: String, redisURL: String, eventLoopGroup: any EventLoopGroup) throws {
        products = try Self.connection(productDatabase, setting: "PRODUCT_DATABASE_URL")
        orders = try Self.connection(orderDatabase, setting: "ORDER_DATABASE_URL")
        do {
            var settings = try RedisConfiguration(url: redisURL)
            // The harness shares the machine with what it loads: a busy moment is not Redis' death.
            settings.commandTimeout = .milliseconds(500)
            redis =
                RedisCluster(configuration: settings, eventLoopGroup: eventLoopGroup).map { .cluster($0) }
                ?? .one(RedisClient(configuration: settings, eventLoopGroup: eventLoopGroup))
        } catch {
            throw PlanError("REDIS_URL: \(error)")
        }
    }

    private static func connection(_ url: String, setting: String) throws -> PostgresConnection {
        do {
            var configuration = try PostgresConfiguration(url: url)
            configuration.applicationName = "flash-sale"
            // A page of a large ledger on a busy machine takes its time.
            configuration.statementTimeout = .seconds(30)
            configuration.callTimeout = .seconds(35)
            return try PostgresConnection(configuration: configuration, name: "audit")
        } catch {
            throw PlanError("\(setting): \(error)")
        }
    }

    /// Closes all connections.
    public func close() async {
        await products.close()
        await orders.close()
        switch redis {
        case .one(let client): await client.shutdown()
        case .cluster(let cluster): await cluster.shutdown()
        }
    }

    /// See `AuditSource`.
    public func product(_ id: Int64) async throws -> ProductRow? {
        try await products.query(AuditSQL.product, [.int(id)]).first.map {
            ProductRow(
                stock: try $0.decode(0, as: Int64.self),
                fence: try $0.decode(1, as: Int64.self),
                initialStock: try $0.decode(2, as: Int64.self)
            )
        }
    }

    /// See `AuditSource`.
    public func ledgerTotals(of product: Int64) async throws -> LedgerTotals {
        let row = try await products.query(AuditSQL.ledgerTotals, [.int(product)]).one()
        return LedgerTotals(
            sold: try row.decode(0),
            returned: try row.decode(1),
            restocked: try row.decode(2),
            decrementsWithoutOrder: try row.decode(3)
        )
    }

    /// See `AuditSource`.
    public func orderTotals(of product: Int64) async throws -> OrderTotals {
        let row = try await orders.query(AuditSQL.orderTotals, [.int(product)]).one()
        return OrderTotals(
            confirmedUnits: try row.decode(0),
            confirmed: try row.decode(1),
            pending: try row.decode(2),
            failed: try row.decode(3),
            cancelled: try row.decode(4)
        )
    }

    /// See `AuditSource`.
    public func orders(of product: Int64, after: Int64, limit: Int) async throws -> [OrderRow] {
        try await orders.query(AuditSQL.orderPage, [.int(product), .int(after), .int(Int64(limit))]).map {
            OrderRow(
                id: try $0.decode(0),
                status: try $0.decode(1),
                quantity: try $0.decode(2),
                key: try $0.decode(3),
                buyer: try $0.decode(4)
            )
        }
    }

    /// See `AuditSource`.
    public func ledger(of product: Int64, after: Int64, limit: Int) async throws -> [LedgerRow] {
        try await products.query(AuditSQL.ledgerPage, [.int(product), .int(after), .int(Int64(limit))]).map {
            LedgerRow(
                orderID: try $0.decode(0),
                decrements: try $0.decode(1),
                decremented: try $0.decode(2),
                increments: try $0.decode(3),
                incremented: try $0.decode(4)
            )
        }
    }

    /// See `AuditSource`.
    public func orderEndings(of product: Int64, after: Int64, limit: Int) async throws -> [OrderEnding] {
        try await orders.query(AuditSQL.orderEndings, [.int(product), .int(after), .int(Int64(limit))]).map {
            OrderEnding(
                id: try $0.decode(0),
                status: try $0.decode(1),
                failReason: try $0.decode(2),
                createdAt: try $0.decode(3),
                updatedAt: try $0.decode(4)
            )
        }
    }

    /// See `AuditSource`.
    public func outbox(of product: Int64) async throws -> OutboxTotals {
        let row = try await orders.query(AuditSQL.outbox, [.int(product)]).one()
        return OutboxTotals(open: try row.decode(0, as: Int64.self), dead: try row.decode(1, as: Int64.self))
    }

    /// See `AuditSource`.
    public func hasWaitingMessages() async throws -> Bool {
        try await orders.query(AuditSQL.waitingMessages, []).one().decode(0, as: Int64.self) > 0
    }

    /// See `AuditSource`.
    public func redisStock(of product: Int64) async -> RedisStock? {
        let keys = AuditSQL.redisKeys(product)
        // All keys of a product are in one slot.
        let slot = HashSlot(key: keys.stock)
        guard let counter = try? await send(.get(keys.stock), slot),
            let fence = try? await send(RedisCommand("HGET", .string(keys.meta), "fence"), slot),
            let pending = try? await send(RedisCommand("HLEN", .string(keys.pending)), slot)
        else { return nil }
        return RedisStock(counter: counter.int, fence: fence.int, pending: pending.int ?? 0)
    }

    private func send(_ command: RedisCommand, _ slot: HashSlot) async throws(RedisError) -> RedisValue {
        switch redis {
        case .one(let client): try await client.send(command)
        case .cluster(let cluster): try await cluster.send(command, to: slot)
        }
    }
}
