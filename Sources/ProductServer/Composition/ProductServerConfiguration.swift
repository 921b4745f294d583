import CircuitBreaker
import PostgresClient
import RedisClient
public import ServerKit
import StockContract
public import StockGate

/// The product server's settings: plain values, and the only reader of their variables.
public struct ProductServerConfiguration: Sendable {
    /// Settings that both servers have.
    public var server: ServerConfiguration
    /// The callers that may change stock and catalogue.
    public var serviceTokens: AdminTokens
    /// The engine's settings.
    public var engine: EngineConfiguration
    /// The products of this server's cell; nil: all.
    var ids: ProductIDs?
    /// How many rows one statement of a list walks at most.
    var listBound: Int64
    /// The broker, and how commands are taken from it; nil: no commands are taken.
    var messaging: CommandConfiguration?
    /// The settings that SIGHUP reads again.
    let rereadables: [any Rereadable]

    /// Reads the environment.
    /// - Throws: `SettingsError` with every variable that cannot be read
    public init(from reader: inout SettingsReader) throws {
        server = ServerConfiguration(from: &reader, publicPort: ("PRODUCT_PORT", 8081), adminPort: ("PRODUCT_ADMIN_PORT", 9081))
        serviceTokens = reader.serviceTokens(of: "the services that may change stock and catalogue")
        let ids = reader.optionalString(
            "PRODUCT_IDS",
            "the ids of this server's products where order servers name cells, such as 1000000- or 5,1000000- or 1-999999,!5; new products get ids of the ranges"
        )
        if let ids {
            do throws(ProductIDs.Refusal) { self.ids = try ProductIDs(ids) } catch { reader.refuse("PRODUCT_IDS: \(error.words)") }
        }
        let gate = reader.address("REDIS_URL", default: "redis://127.0.0.1:6379", "the gate's Redis") {
            url throws(SettingsReader.Refusal) in
            let redis: RedisConfiguration
            do throws(RedisConfiguration.InvalidURL) { redis = try RedisConfiguration(url: url) } catch { throw .init(error.description) }
            return redis
        }
        reader.check("REDIS_URL", gate?.tls)
        let sentinelUser = reader.optionalString("REDIS_SENTINEL_USERNAME", "user at the sentinels of REDIS_URL; with a password only")
        let sentinelPassword = reader.secret("REDIS_SENTINEL_PASSWORD", "password at the sentinels of REDIS_URL")
        let sentinels: RedisSentinels? = if case .sentinels(let sentinels)? = gate?.address { sentinels } else { nil }
        if gate != nil, sentinels == nil {
            if sentinelUser?.isEmpty == false { reader.refuse("REDIS_SENTINEL_USERNAME: REDIS_URL names no sentinels") }
            if sentinelPassword?.isEmpty == false { reader.refuse("REDIS_SENTINEL_PASSWORD: REDIS_URL names no sentinels") }
        } else if sentinelUser?.isEmpty == false, sentinelPassword?.isEmpty ?? true {
            reader.refuse("REDIS_SENTINEL_USERNAME: a user without a password, REDIS_SENTINEL_PASSWORD")
        }
        var database = reader.address(
            "PRODUCT_DATABASE_URL",
            default: "postgresql://127.0.0.1:5432/stockgate_product",
            "the ledger's database, as libpq reads it"
        ) { url throws(SettingsReader.Refusal) in
            do throws(PostgresError) { return try PostgresConfiguration(url: url) } catch { throw .init(error.message) }
        }
        reader.warnOfTLS("PRODUCT_DATABASE_URL", database?.tlsWarning)
        reader.usePooler(of: "PRODUCT_DATABASE_URL", &database)
        let milliseconds = Duration.milliseconds(1)...Duration.seconds(60)
        let gateTimeout = reader.duration(
            "GATE_TIMEOUT",
            default: .milliseconds(50),
            in: milliseconds,
            "how long a reserve in Redis may take"
        )
        let lockTimeout = reader.duration(
            "LOCK_TIMEOUT",
            default: .seconds(2),
            in: milliseconds,
            "how long one request waits for a product's locked row"
        )
        let rowWait = reader.duration(
            "LEDGER_ROW_WAIT",
            default: .milliseconds(50),
            in: .milliseconds(1)...(.seconds(2)),
            "how long a group of requests waits for a lock before it goes on without the products whose rows are locked"
        )
        let statementTimeout = reader.duration("STATEMENT_TIMEOUT", default: .seconds(4), in: milliseconds, "how long a statement may take")
        let answerWithin = reader.duration(
            "ANSWER_WITHIN",
            default: .seconds(3),
            in: milliseconds,
            "how long a decrease or an increase may take before it is answered"
        )
        let soldOutMemory = reader.duration(
            "SOLD_OUT_MEMORY",
            default: .milliseconds(20),
            in: .zero...(.milliseconds(20)),
            "how long this process remembers that a product is sold out"
        )
        let lanes = reader.int(
            "LEDGER_LANES",
            default: 1,
            in: 1...16,
            "connections for group commit of decreases; a product uses one of them"
        )
        let poolSize = reader.int("LEDGER_POOL", default: 6, in: 2...64, "connections for the engine's other work and for changes by hand")
        let reads = ReadConfiguration(from: &reader)
        listBound = reads.listBound
        let inFlight = reader.int(
            "MAX_IN_FLIGHT",
            default: 20_000,
            in: 1...1_000_000,
            "stock requests in flight at most; more are OVERLOADED"
        )
        let pendingBound = reader.duration(
            "PENDING_BOUND",
            default: .seconds(30),
            in: .milliseconds(100)...(.seconds(3600)),
            "how long a reservation may be pending before the sweep has its product resynced"
        )
        let sweepInterval = reader.duration("SWEEP_INTERVAL", default: .seconds(5), in: milliseconds, "time between two sweeps")
        let auditInterval = reader.duration(
            "AUDIT_INTERVAL",
            default: .seconds(30),
            in: .milliseconds(100)...(.seconds(3600)),
            "time between two audits of all gated products"
        )
        let gatedRefresh = reader.duration(
            "GATED_REFRESH",
            default: .seconds(5),
            in: milliseconds,
            "time between two reads of which products are gated"
        )
        let markRetention = reader.duration(
            "MARK_RETENTION",
            default: .seconds(24 * 3600),
            in: .seconds(1)...(.seconds(30 * 24 * 3600)),
            "how long settled marks are kept in Redis"
        )
        let breakerWait = reader.duration(
            "BREAKER_WAIT",
            default: .seconds(5),
            in: .milliseconds(50)...(.seconds(600)),
            "how long redisStock stays open before its recovery"
        )
        let resyncTimeout = reader.duration(
            "RESYNC_TIMEOUT",
            default: .seconds(10),
            in: .milliseconds(500)...(.seconds(600)),
            "how long a recovery may take to make Redis exact; products that do not fit into half of that time follow later"
        )
        let breakerCalls = reader.int(
            "BREAKER_MINIMUM_CALLS",
            default: 20,
            in: 1...1_000,
            "calls that redisStock must see before it judges"
        )
        let breakerRate = reader.int("BREAKER_FAILURE_RATE", default: 50, in: 1...100, "percentage of failures that opens redisStock")
        let breakerProbes = reader.int("BREAKER_PROBES", default: 10, in: 1...1_000, "calls that redisStock lets through in half-open")
        messaging = CommandConfiguration(from: &reader)
        rereadables = reader.rereadables
        try reader.finish()

        // Bad addresses have been reported by the error above.
        guard var postgres = database, var redis = gate else { throw SettingsError(faults: []) }
        postgres.applicationName = "product-server"
        postgres.lockTimeout = lockTimeout
        postgres.statementTimeout = statementTimeout
        postgres.callTimeout = statementTimeout + .seconds(1)
        var ledger = LedgerConfiguration(postgres: postgres)
        ledger.lanes = lanes
        ledger.rowWait = rowWait
        ledger.poolSize = poolSize
        ledger.laneCapacity = inFlight
        ledger.readConnections = reads.connections
        ledger.lookupConnections = reads.lookupConnections
        ledger.readTimeout = reads.timeout
        ledger.readWaiting = ReadConfiguration.maximumWaiting
        ledger.readAcquireTimeout = ReadConfiguration.acquireTimeout
        redis.commandTimeout = gateTimeout
        if var sentinels {
            sentinels.username = sentinelUser.flatMap { $0.isEmpty || $0 == "default" ? nil : $0 }
            sentinels.password = sentinelPassword.flatMap { $0.isEmpty ? nil : $0 }
            redis.address = .sentinels(sentinels)
        }
        // A window of calls, not of time: in a sale a hundred calls are some 10 ms, so a Redis that is gone is found out before a second hundred of
        // buyers has met it. With a window of seconds the successes before the fault outvote it for just as long. A false alarm costs little: the
        // fallback serves at nearly the same speed, and the recovery makes Redis exact before it is used again.
        let breaker = try CircuitBreakerConfiguration { values in
            values.window = .count(100)
            values.minimumNumberOfCalls = breakerCalls
            values.failureRateThreshold = Double(breakerRate)
            values.permittedCallsInHalfOpen = breakerProbes
            values.waitInOpen = .constant(breakerWait)
            // The sale needs its gate back, even if no buyer comes to try it.
            values.movesToHalfOpenByItself = true
            values.recoveryTimeLimit = resyncTimeout
            values.permitLease = .seconds(2)
            values.maximumTimeInHalfOpen = .seconds(60)
            values.eventRingCapacity = 500
        }
        engine = EngineConfiguration(ledger: ledger, redis: redis, breaker: breaker)
        engine.answerWithin = answerWithin
        engine.soldOutMemory = soldOutMemory
        engine.maximumInFlight = inFlight
        engine.pendingBound = pendingBound
        engine.sweepInterval = sweepInterval
        engine.auditInterval = auditInterval
        engine.gatedRefresh = gatedRefresh
        engine.markRetention = markRetention
    }
}
