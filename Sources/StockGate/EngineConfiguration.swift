import CircuitBreaker
import PostgresClient
import RedisClient

/// Everything that can be set about the engine. The defaults suit a sale.
public struct EngineConfiguration: Sendable {
    /// The truth.
    public var ledger: LedgerConfiguration
    /// The gate. Its `commandTimeout` bounds a reserve (50 ms): a buyer waits for it.
    public var redis: RedisSettings
    /// The breaker `redisStock` around the gate.
    public var breaker: CircuitBreakerSettings
    /// Bounds Redis calls that no buyer waits for.
    public var backgroundTimeout: Duration = .milliseconds(500)
    /// For how long this process remembers *sold out*.
    public var soldOutMemory: Duration = .milliseconds(20)
    /// Requests in flight at most; the next is told *overloaded* at once.
    public var maximumInFlight = 20_000
    /// A request that is not decided by then is told *no answer*; it goes on in the background.
    public var answerWithin: Duration = .seconds(3)
    /// For how long a request waits for a resync of its product before it goes direct.
    public var resyncWait: Duration = .milliseconds(500)
    /// Between two resyncs of one product on this server.
    public var resyncInterval: Duration = .milliseconds(50)
    /// Products in one round of a resync at most.
    public var resyncChunk = 256
    /// A reservation pending for longer belongs to a process that died or hangs.
    public var pendingBound: Duration = .seconds(30)
    /// Between two sweeps.
    public var sweepInterval: Duration = .seconds(5)
    /// Between two audits of all gated products.
    public var auditInterval: Duration = .seconds(30)
    /// Between two reads of which products are gated, for changes made through other servers.
    public var gatedRefresh: Duration = .seconds(5)
    /// Between two prunings of marks that are older than their retention. Each goes on, in small steps, until none is left.
    public var pruneInterval: Duration = .seconds(10)
    /// How long settled marks are kept.
    public var markRetention: Duration = .seconds(24 * 3600)

    /// Defaults around one database and one Redis.
    public init(ledger: LedgerConfiguration, redis: RedisSettings, breaker: CircuitBreakerSettings) {
        self.ledger = ledger
        self.redis = redis
        self.breaker = breaker
    }
}

/// What happened in the engine that an operator may want to read.
public enum EngineEvent: Sendable {
    /// A connection to Redis was made; it holds this dataset.
    case redisConnected(dataset: String)
    /// A connection to Redis ended.
    case redisDisconnected(why: String)
    /// Redis serves `products` gated products exactly, behind the breaker's recovery gate. `direct` more are sold through the ledger alone until they can
    /// be installed: those that failed, each with a `leftDirect` of its own, and those for which the time was over.
    /// Those for which Redis holds another ledger's data are among `products`, and have an event of their own: `foreignLedger`.
    case recovered(products: Int, direct: Int, took: Duration)
    /// The breaker's recovery gate failed. Said once until the reason changes.
    case recoveryFailed(why: String)
    /// Redis fails, in its own words. Said once until they change.
    case redisFailed(why: String)
    /// A product was resynced.
    case resynced(ProductID, fence: Fence, stock: Int64)
    /// A product could not be resynced, for a reason of its own, and will be tried again. Said once until the reason changes.
    case resyncFailed(ProductID, why: String)
    /// A gated product is sold through the ledger alone, and why. The others are not touched by it. Said once until the reason changes.
    case leftDirect(ProductID, why: String)
    /// A product that was sold through the ledger alone is sold through Redis again.
    case gatedAgain(ProductID)
    /// So many more events of single products were not told, for there were too many.
    case untold(Int)
    /// Reservations of a product were pending for too long.
    case swept(ProductID, overdue: Int64)
    /// Two looks a second apart found Redis and PostgreSQL apart.
    case auditFound(ProductID, stock: Int64, counter: Int64?, fence: Fence, redisFence: Fence)
    /// The rows of these products have been locked for a second or longer by somebody else's transaction: their requests are told *lock timeout*.
    case productsLocked([ProductID])
    /// A product's row is free again.
    case productUnlocked(ProductID, after: Duration)
    /// The session of a lane of group commit cannot connect, has lost its connection, or may only read; nil: it works again. Once for each change.
    case laneChanged(String, why: String?)
    /// Redis is too old, or its user may not do what the gate needs: each command with Redis' own words. Products are sold without it. Told once.
    case redisRefuses(why: String)
    /// Redis holds the data of another ledger (`theirs`), first seen for this product. It is not used, and the products are sold without Redis. Told once for
    /// all products.
    case foreignLedger(ProductID, theirs: String, ours: String)
    /// No product is in the way of another ledger any more.
    case foreignLedgerGone
    /// Something in the background failed, and will be tried again.
    case trouble(String)
}
