import ServerMetrics
import PostgresClient
import ServerKit

/// The orders for reads, over separate connections. However many or long the reads are, they take no connection from work that sells, settles, or reports
/// readiness.
struct ReadStores: Sendable {
    /// Connections for reads of one order.
    let lookups: PostgresPool
    let lists: PostgresPool
    /// The store over both.
    let orders: OrderStore

    init(_ settings: OrderServerConfiguration) {
        lookups = settings.readPool(connections: settings.reads.lookupConnections)
        self.lists = settings.readPool(connections: settings.reads.connections)
        orders = OrderStore(
            pool: lookups,
            recoveryAge: settings.recoveryAge,
            lists: self.lists,
            listBound: settings.reads.listBound
        )
    }

    /// Closes the connections.
    func shutdown() async {
        await lookups.shutdown()
        await lists.shutdown()
    }

    func register(in registry: MetricsRegistry) {
        let pools = [("lists", lists), ("lookups", lookups)]
        registry.collector("stockgate_orders_read_pool_waiting", help: "Readers that wait for a connection of their pool", kind: .gauge) {
            pools.map { .init(labels: [(name: "pool", value: $0.0)], Double($0.1.snapshot().waiting)) }
        }
        registry.collector(
            "stockgate_orders_read_pool_refused_total",
            help: "Readers that got no connection of their pool in time",
            kind: .counter
        ) {
            pools.map { pool in
                let snapshot = pool.1.snapshot()
                return .init(labels: [(name: "pool", value: pool.0)], Double(snapshot.rejected) + Double(snapshot.expired))
            }
        }
    }
}
