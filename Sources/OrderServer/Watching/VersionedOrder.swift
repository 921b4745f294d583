import PostgresClient
import StockContract

/// An order with its version, which grows with every change.
struct VersionedOrder: Sendable, Equatable {
    var order: Order
    var version: Int64

    /// Whether only a cancellation or another run can still change the order.
    var isSettled: Bool { order.status != .pending }
}

extension VersionedOrder {
    /// Reads the version and, after it, ``Order/columns``.
    init(row: PostgresRow) throws(PostgresError) {
        self.init(order: try Order(row: row, from: 1), version: try row.decode(0))
    }
}

extension OrderStore {
    /// The present order with its version.
    func versionedOrder(id: Int64) async throws(PostgresError) -> VersionedOrder? {
        let sql = "select o.version, \(Order.columns), \(PostgresSession.replicatedServer) from orders o where o.id = $1"
        guard let row = try await pool.query(sql, [.int(id)]).first else { return nil }
        let found = try VersionedOrder(row: row)
        _ = try await told(found.order, at: try row.decode(Order.columnCount + 1))
        return found
    }

    /// Those of the orders that have a version above the one seen, in one statement.
    func orders(newerThan wanted: [OrderWaiters.Wanted]) async throws(PostgresError) -> [VersionedOrder] {
        let rows = try await pool.query(
            """
            select o.version, \(Order.columns), \(PostgresSession.replicatedServer)
            from unnest($1, $2) as w(id, seen) join orders o on o.id = w.id
            where o.id = any($1) and o.version > w.seen
            """,
            [.ints(wanted.map(\.order)), .ints(wanted.map(\.seen))]
        )
        var orders: [VersionedOrder] = []
        for row in rows { orders.append(try VersionedOrder(row: row)) }
        // One wait serves all of them.
        if let row = rows.first, orders.contains(where: \.isSettled) {
            try await pool.awaitReplication(at: try row.decode(Order.columnCount + 1))
        }
        return orders
    }
}

extension VersionedOrder {
    /// The order as an event describes it. Members that the event lacks keep their defaults.
    init(event order: OrderEvent.Order) {
        self.init(
            order: Order(
                id: order.id,
                productID: order.productID,
                productCode: order.productCode,
                buyerID: order.buyerID,
                quantity: order.quantity,
                unitPrice: order.unitPrice,
                status: order.status,
                failReason: order.failReason,
                idempotencyKey: nil,
                run: order.run,
                cancelRequestedAt: nil,
                cancelKey: nil,
                createdAt: order.createdAt,
                updatedAt: order.updatedAt
            ),
            version: order.version
        )
    }
}
