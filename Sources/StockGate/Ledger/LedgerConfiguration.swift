public import PostgresClient

/// How the ledger is reached.
public struct LedgerConfiguration: Sendable {
    /// The database and its timeouts. `statementTimeout` holds for every statement; `lockTimeout` bounds the wait of every request for a locked row.
    public var postgres: PostgresConfiguration
    /// How long a group's statement waits for a lock. All requests of the group wait with it. After that the group goes on without the products whose rows are
    /// locked; their requests wait apart from it, up to `lockTimeout`.
    public var rowWait: Duration = .milliseconds(50)
    /// Requests that wait for one product's locked row at most. The next one is told *lock timeout* at once.
    public var waitingForOneRow = 512
    /// Requests that wait for locked rows at most, over all products.
    public var waitingForRows = 4096
    /// Connections for group commit. Each product belongs to one lane, because one connection commits to a hot row faster than two.
    public var lanes = 1
    /// Requests that wait in one lane at most. The next one is told *overloaded*.
    public var laneCapacity = 20_000
    /// Requests in one statement at most.
    public var maximumBatch = 512
    /// Connections for the engine's other statements, and for changes by hand. Callers that only read never take one of them.
    public var poolSize = 6
    /// Connections for lists and audits, whose reads may be long.
    public var readConnections = 2
    /// Connections for reads of one row by its key. They are separate from the others, so that a long read cannot delay them.
    public var lookupConnections = 2
    /// Bounds one statement over the connections for reads or lookups.
    public var readTimeout: Duration = .seconds(2)
    /// Rows of a product's ledger that one statement of an audit reads at most.
    public var auditRows: Int64 = 50_000
    /// How long one audit may spend on bringing the kept sums forward.
    public var auditTime: Duration = .seconds(5)
    /// Callers that wait for a connection for reads, or for lookups, at most. Further ones are told that the pool is exhausted.
    public var readWaiting = 64
    /// How long a caller waits for a connection for reads or lookups.
    public var readAcquireTimeout: Duration = .seconds(1)

    /// Defaults for one database.
    public init(postgres: PostgresConfiguration) { self.postgres = postgres }
}
