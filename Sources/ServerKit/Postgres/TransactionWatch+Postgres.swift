public import Logging
public import PostgresClient
public import ServerMetrics
import Synchronization

extension TransactionWatch {
    /// Watches the open transactions of a pool's database.
    public init(_ pool: PostgresPool, registry: MetricsRegistry, logger: Logger) {
        let ages = Mutex(TransactionAges())
        self.init(registry: registry, logger: logger) {
            let transactions = try await pool.openTransactions()
            return ages.withLock { $0.saw(transactions, at: .now) }.map { .init(age: $0.age, who: $0.who) }
        }
    }
}
