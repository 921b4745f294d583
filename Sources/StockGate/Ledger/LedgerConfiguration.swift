public import PostgresClient

/// How the ledger is reached.
public struct LedgerConfiguration: Sendable {
    /// The database and its timeouts: `statementTimeout` holds for every statement, `lockTimeout` for every request.
    public var postgres: PostgresConfiguration
    /// How long a group's statement waits for a lock, and with it all of its requests: then it goes on without the products whose rows are locked, and their requests wait
    /// apart, up to `lockTimeout`.
    public var rowWait: Duration = .milliseconds(50)
    /// Requests that wait for one product's locked row at most; the next is told *lock timeout* at once.
    public var waitingForOneRow = 512
    /// Requests that wait for all locked rows at most.
    public var waitingForRows = 4096
    /// Connections for group commit. A product belongs to one lane: a hot row is faster over one connection than over two.
    public var lanes = 1
    /// Requests that wait in one lane at most; the next is told *overloaded*.
    public var laneCapacity = 20_000
    /// Requests in one statement at most.
    public var maximumBatch = 512
    /// Connections for what the engine does besides, and for changes by hand. Nothing that only reads for a caller takes one of them.
    public var poolSize = 6
    /// Connections for lists and audits, whose reads may be long.
    public var readConnections = 2
    /// Connections for reads of one row by its key, which what is long must not hold up either.
    public var lookupConnections = 2
    /// Bound on one statement over either.
    public var readTimeout: Duration = .seconds(2)
    /// Rows of a product's ledger that one statement of an audit reads at most.
    public var auditRows: Int64 = 50_000
    /// How long one audit may bring the kept sums forward.
    public var auditTime: Duration = .seconds(5)
    /// Callers that wait for a connection of either at most, and for how long; more are told that the pool is exhausted.
    public var readWaiting = 64
    /// See ``readWaiting``.
    public var readAcquireTimeout: Duration = .seconds(1)

    /// Defaults for one database.
    public init(postgres: PostgresConfiguration) { self.postgres = postgres }
}
