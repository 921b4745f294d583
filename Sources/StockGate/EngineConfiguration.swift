import NIOCore
public import CircuitBreaker
public import RedisClient

/// Everything that can be set about the engine. The defaults suit a sale.
public struct EngineConfiguration: Sendable {
    /// The database that holds the truth about the stock.
    public var ledger: LedgerConfiguration
    /// The Redis that gates the stock. Its `commandTimeout` (50 ms) bounds a reserve, because a buyer waits for it.
    public var redis: RedisConfiguration
    /// The breaker `redisStock` around every Redis call. In a cluster each master has one like it.
    public var breaker: CircuitBreakerConfiguration
    /// Bounds those Redis calls that no buyer waits for.
    public var backgroundTimeout: Duration = .milliseconds(500)
    /// How long `start` waits for a cluster to say which masters it has.
    public var mapWait: Duration = .seconds(2)
    /// For how long this process remembers *sold out*.
    public var soldOutMemory: Duration = .milliseconds(20)
    /// Requests in flight at most. The next one is told *overloaded* at once.
    public var maximumInFlight = 20_000
    /// A request that is still undecided after this time is told *no answer*, and goes on in the background.
    public var answerWithin: Duration = .seconds(3)
    /// How long a request waits for a resync of its product before it goes directly to the ledger.
    public var resyncWait: Duration = .milliseconds(500)
    /// The time between two resyncs of one product on this server.
    public var resyncInterval: Duration = .milliseconds(50)
    /// Products in one round of a resync at most.
    public var resyncChunk = 256
    /// A reservation that is pending for longer than this belongs to a process that died or hangs.
    public var pendingBound: Duration = .seconds(30)
    /// The time between two sweeps.
    public var sweepInterval: Duration = .seconds(5)
    /// The time between two audits of all gated products.
    public var auditInterval: Duration = .seconds(30)
    /// The time between two reads of which products are gated. They find the changes that were made through other servers.
    public var gatedRefresh: Duration = .seconds(5)
    /// The time between two prunings of old marks. Each goes on, in small steps, until nothing is left to prune.
    public var pruneInterval: Duration = .seconds(10)
    /// How long settled marks are kept.
    public var markRetention: Duration = .seconds(24 * 3600)

    /// Defaults around one database and one Redis.
    public init(ledger: LedgerConfiguration, redis: RedisConfiguration, breaker: CircuitBreakerConfiguration) {
        self.ledger = ledger
        self.redis = redis
        self.breaker = breaker
    }
}

/// The engine's durations, converted to the units in which their users need them.
struct EngineTimes: Sendable {
    let gate: GateTimes
    let answerWithin: TimeAmount
    let resyncWait: TimeAmount
    let pendingBound: TimeAmount
    let soldOutMemory: UInt64
    let resyncInterval: UInt64

    init(_ configuration: EngineConfiguration) {
        gate = GateTimes(
            command: TimeAmount(configuration.redis.commandTimeout),
            background: TimeAmount(configuration.backgroundTimeout),
            markRetention: TimeAmount(configuration.markRetention).nanoseconds / 1_000_000
        )
        answerWithin = TimeAmount(configuration.answerWithin)
        resyncWait = TimeAmount(configuration.resyncWait)
        pendingBound = TimeAmount(configuration.pendingBound)
        soldOutMemory = UInt64(max(0, TimeAmount(configuration.soldOutMemory).nanoseconds))
        resyncInterval = UInt64(max(0, TimeAmount(configuration.resyncInterval).nanoseconds))
    }
}
