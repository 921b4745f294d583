import NIOCore
public import CircuitBreaker
import PostgresClient
public import RedisClient

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

/// The engine's durations, in the units of their users.
struct EngineTimes: Sendable {
    let gate: GateTimes
    let answerWithin: TimeAmount
    let resyncWait: TimeAmount
    let pendingBound: TimeAmount
    let soldOutMemory: UInt64
    let resyncInterval: UInt64

    init(_ configuration: EngineConfiguration) {
        self.gate = GateTimes(
            command: TimeAmount(configuration.redis.commandTimeout),
            background: TimeAmount(configuration.backgroundTimeout),
            markRetention: TimeAmount(configuration.markRetention).nanoseconds / 1_000_000
        )
        self.answerWithin = TimeAmount(configuration.answerWithin)
        self.resyncWait = TimeAmount(configuration.resyncWait)
        self.pendingBound = TimeAmount(configuration.pendingBound)
        self.soldOutMemory = UInt64(max(0, TimeAmount(configuration.soldOutMemory).nanoseconds))
        self.resyncInterval = UInt64(max(0, TimeAmount(configuration.resyncInterval).nanoseconds))
    }
}
