// Invariant: an age is never longer than the transaction is old. Where the server shows when a transaction began, the age is exact. Where it hides that,
//   because the transaction belongs to a role that this one may not watch, the age counts from the first look that met it.
//
// Bounds: `limit` transactions a look; only those of the last look are remembered.

/// How old the oldest open transaction of a database is, over a series of looks.
public struct TransactionAges: Sendable {
    /// A transaction that a look has met.
    public struct Seen: Sendable, Hashable {
        /// An identity that no other transaction has had since the server's start.
        var transaction: String
        /// The owner: process, role and application.
        var who: String
        /// The age; nil if the server hides when the transaction began.
        var age: Duration?

        init(transaction: String, who: String, age: Duration?) {
            self.transaction = transaction
            self.who = who
            self.age = age
        }
    }

    /// Transactions that one look reads at most.
    static let limit = 256

    private var firstSeen: [String: ContinuousClock.Instant] = [:]

    /// Creates the state before the first look.
    public init() {}

    /// Records the transactions that a look has met.
    /// - Returns: the oldest one; nil if none is open
    public mutating func saw(_ transactions: [Seen], at now: ContinuousClock.Instant) -> (age: Duration, who: String)? {
        var seen: [String: ContinuousClock.Instant] = [:]
        var oldest: (age: Duration, who: String)?
        for transaction in transactions {
            let first = firstSeen[transaction.transaction] ?? now
            if transaction.age == nil { seen[transaction.transaction] = first }
            let age = max(.zero, transaction.age ?? (now - first))
            if oldest.map({ $0.age < age }) ?? true { oldest = (age, transaction.who) }
        }
        firstSeen = seen
        return oldest
    }
}

extension PostgresPool {
    /// The open transactions of this database that keep dead rows from being removed. Transactions whose details are hidden are included, whatever they do.
    ///
    /// Transactions of other databases and vacuums are left out, because they keep no dead rows of this database.
    public func openTransactions() async throws(PostgresError) -> [TransactionAges.Seen] {
        let rows = try await query(
            """
            select 'backend ' || a.pid || ' ' || coalesce(l.virtualtransaction, ''),
              'pid ' || a.pid || ', role ' || coalesce(a.usename::text, '?') || ', application ' || coalesce(a.application_name, ''),
              (extract(epoch from clock_timestamp() - a.xact_start) * 1000000)::bigint
            from pg_stat_activity a left join pg_locks l on l.pid = a.pid and l.locktype = 'virtualxid' and l.virtualxid = l.virtualtransaction
            where a.datname = current_database() and a.pid <> pg_backend_pid() and coalesce(a.backend_type, '') <> 'autovacuum worker'
              and case when a.xact_start is null then l.pid is not null else coalesce(a.backend_xmin, a.backend_xid) is not null end
            union all
            select 'prepared ' || transaction, 'prepared transaction ' || gid || ', role ' || owner::text,
              (extract(epoch from clock_timestamp() - prepared) * 1000000)::bigint
            from pg_prepared_xacts where database = current_database()
            order by 3 desc nulls first limit \(TransactionAges.limit)
            """
        )
        var transactions: [TransactionAges.Seen] = []
        for row in rows {
            transactions.append(
                .init(
                    transaction: try row.decode(0),
                    who: try row.decode(1),
                    age: try row.decode(2, as: Int64?.self).map { .microseconds($0) }
                )
            )
        }
        return transactions
    }
}
