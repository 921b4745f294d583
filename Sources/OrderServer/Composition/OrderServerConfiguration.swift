import CircuitBreaker
public import PostgresClient
public import ServerKit
import StockContract

/// The order server's settings.
public struct OrderServerConfiguration: Sendable {
    /// Settings that both servers have.
    public var server: ServerConfiguration
    /// The order database.
    public var postgres: PostgresConfiguration
    /// The order database, for sessions that write in groups.
    var groupPostgres: PostgresConfiguration
    /// Connections for all work that is not done in groups. The groups have three more, and a fourth while results are aside.
    var poolConnections: Int
    /// Connections for reads, separate from all others.
    var reads: ReadConfiguration
    var maximumQueued: Int
    var maximumBatch: Int
    /// The product servers, by the products that they have. At least one cell.
    var cells: [CellSetting]
    /// Which cell has a product; nil where the one cell has all.
    var cellMap: CellMap?
    var token: Secret<String>?
    var maximumCalls: Int
    var callTimeout: Duration
    /// The age after which a connection to a product server carries no further call.
    var connectionAge: Duration
    var retry: RetryPolicy
    var deadlines: OrderDeadlines
    /// Whether a sold-out request leaves a FAILED order.
    var persistsRejected: Bool
    var soldOutTime: Duration
    var checksUnitPrice: Bool
    var recovery: RecoveryService.Configuration
    var recoveryAge: Duration
    var breaker: CircuitBreakerConfiguration
    /// Settings for orders over the broker; nil without a broker.
    var messaging: MessagingConfiguration?
    /// How many requests may wait for an order, together with the streams of orders' changes.
    var maximumWaiters: Int
    /// Whether this server only shows a replica of other servers' orders.
    var follows: Bool
    /// The database for the relay, whose commits need not be flushed.
    var relayPostgres: PostgresConfiguration
    /// The settings that SIGHUP reads again.
    let rereadables: [any Rereadable]

    /// Reads all settings.
    /// - Throws: ``SettingsError`` with every fault
    public init(from reader: inout SettingsReader) throws {
        server = ServerConfiguration(from: &reader, publicPort: ("ORDER_PORT", 8082), adminPort: ("ORDER_ADMIN_PORT", 9082))
        var database = reader.address(
            "ORDER_DATABASE_URL",
            default: "postgresql://127.0.0.1:5432/orders",
            "the order database, as libpq reads it"
        ) { url throws(SettingsReader.Refusal) in
            do throws(PostgresError) { return try PostgresConfiguration(url: url) } catch { throw .init(error.message) }
        }
        reader.warnOfTLS("ORDER_DATABASE_URL", database?.tlsWarning)
        reader.usePooler(of: "ORDER_DATABASE_URL", &database)
        poolConnections = reader.int(
            "ORDER_DATABASE_CONNECTIONS",
            default: 4,
            in: 1...256,
            "connections besides the three for groups and those for reads"
        )
        reads = ReadConfiguration(from: &reader)
        maximumQueued = reader.int(
            "ORDER_QUEUE",
            default: 10_000,
            in: 1...1_000_000,
            "orders that may wait for one step; more are OVERLOADED"
        )
        maximumBatch = reader.int("ORDER_BATCH", default: 512, in: 1...8_192, "orders in one statement at most")
        (cells, cellMap) = CellSetting.read(&reader)
        token = reader.secret(
            "PRODUCT_SERVICE_TOKEN",
            "token that the product servers ask for: one of their SERVICE_TOKENS, or of their ADMIN_TOKEN for stock in batches",
            expected: "of printable characters without spaces"
        ) { text in
            !text.isEmpty && text.utf8.allSatisfy { (0x21...0x7E).contains($0) } ? text : nil
        }
        maximumCalls = reader.int("PRODUCT_CALLS", default: 2, in: 1...1_024, "batch calls to the product servers at the same time")
        let second = Duration.seconds(1)
        self.callTimeout = reader.duration(
            "PRODUCT_TIMEOUT",
            default: second * 2,
            in: .milliseconds(1)...second * 60,
            "how long one call may take"
        )
        connectionAge = reader.duration(
            "PRODUCT_CONNECTION_AGE",
            default: second * 30,
            in: .milliseconds(100)...second * 86_400,
            "age, give or take a quarter, at which a connection to a product server is closed after its answer, so that new instances behind one name get calls"
        )
        retry = RetryPolicy()
        retry.maximumAttempts = reader.int("PRODUCT_ATTEMPTS", default: 6, in: 1...100, "calls for one step of one order at most")
        retry.initialBackoff = reader.duration(
            "PRODUCT_BACKOFF",
            default: .milliseconds(50),
            in: .milliseconds(1)...second * 60,
            "the longest first wait between two calls; it doubles with each call"
        )
        retry.maximumBackoff = reader.duration(
            "PRODUCT_BACKOFF_MAX",
            default: second,
            in: .milliseconds(1)...second * 60,
            "the longest wait between two calls"
        )
        deadlines = OrderDeadlines()
        deadlines.buyer = reader.duration(
            "ORDER_DEADLINE",
            default: second * 3,
            in: .milliseconds(10)...second * 60,
            "how long a buyer waits at most; then the answer is 424"
        )
        persistsRejected = reader.bool("PERSIST_REJECTED", default: false, "keep a FAILED order of every sold-out request")
        soldOutTime = reader.duration(
            "SOLD_OUT_MEMORY",
            default: .milliseconds(20),
            in: .zero...second,
            "how long a sold-out answer is remembered, 0s for not at all"
        )
        checksUnitPrice = reader.bool(
            "CHECK_UNIT_PRICE",
            default: true,
            "refuse an order whose unitPrice differs from the product's present price"
        )
        recovery = RecoveryService.Configuration()
        recovery.interval = reader.duration(
            "RECOVERY_INTERVAL",
            default: second,
            in: .milliseconds(10)...second * 600,
            "time between two rounds of recovery"
        )
        recovery.batch = reader.int("RECOVERY_BATCH", default: 256, in: 1...10_000, "orders that recovery settles at the same time")
        recoveryAge = reader.duration(
            "RECOVERY_AGE",
            default: second * 10,
            in: .milliseconds(100)...second * 3_600,
            "age at which a PENDING order is settled by recovery"
        )
        if recoveryAge <= deadlines.buyer {
            reader.refuse("RECOVERY_AGE must be longer than ORDER_DEADLINE")
        }
        recovery.lease = deadlines.recovery + self.callTimeout * 2 + second * 5
        let waitInOpen = reader.duration(
            "PRODUCT_BREAKER_WAIT",
            default: second,
            in: .milliseconds(10)...second * 600,
            "the first wait of the open breaker; it doubles each time, up to 10 s"
        )
        // A missing or bad address is thrown below. The substitute lets the other settings be checked first.
        postgres = try database ?? PostgresConfiguration(url: "postgresql://127.0.0.1/orders")
        groupPostgres = postgres
        groupPostgres.options = OrderServerConfiguration.indexOnly
        relayPostgres = postgres
        relayPostgres.options = OrderServerConfiguration.indexOnly + " -c enable_sort=off -c synchronous_commit=off"
        // A caller that reads gets an answer within the time that a buyer gets one.
        postgres.callTimeout = min(postgres.callTimeout, max(second * 3, deadlines.buyer))
        postgres.statementTimeout = min(postgres.statementTimeout, postgres.callTimeout - .milliseconds(200))
        postgres.applicationName = "stockgate-order"
        groupPostgres.applicationName = "stockgate-order-groups"
        relayPostgres.applicationName = "stockgate-order-relay"
        let waiters = reader.int(
            "ORDER_WAITERS",
            default: 10_000,
            in: 1...100_000,
            "requests that wait for an order's change, and streams of changes, at most, and no more than half of MAX_CONNECTIONS and of MAX_CONNECTIONS_PER_ADDRESS; more are OVERLOADED"
        )
        // Who waits holds a connection, and behind a gateway all callers have one address. If waiting could use up the connections of that address, whoever waits
        // for one order that stays PENDING would keep everybody from ordering.
        maximumWaiters = max(1, min(waiters, server.maximumConnections / 2, server.maximumConnectionsPerAddress / 2))
        messaging = MessagingConfiguration(from: &reader)
        follows = reader.bool(
            "FOLLOW",
            default: false,
            "only show orders: keep a replica in ORDER_DATABASE_URL, a database of its own, from the events at AMQP_URL"
        )
        // A bad broker address was refused by its own name already.
        if follows, messaging == nil { reader.refuse("FOLLOW needs AMQP_URL") }
        let callTimeout = self.callTimeout
        breaker = try CircuitBreakerConfiguration {
            $0.window = .count(50)
            $0.minimumNumberOfCalls = 10
            $0.slowCallDurationThreshold = callTimeout
            $0.permittedCallsInHalfOpen = 3
            $0.permitLease = callTimeout * 2
            $0.waitInOpen = .exponential(initial: waitInOpen, maximum: max(.seconds(10), waitInOpen))
        }
        rereadables = reader.rereadables
        try reader.finish()
    }

    /// A pool for reads. A caller that waits in it waits only for other reads.
    func readPool(connections: Int) -> PostgresPool {
        var configuration = postgres
        configuration.applicationName += "-reads"
        configuration.statementTimeout = reads.timeout
        configuration.callTimeout = reads.timeout + .seconds(1)
        configuration.plansThroughIndexes = true
        return PostgresPool(
            configuration: configuration,
            maximumConnections: connections,
            maximumWaiting: ReadConfiguration.maximumWaiting,
            acquireTimeout: ReadConfiguration.acquireTimeout
        )
    }

    /// Options that let PostgreSQL plan with indexes only. An operator's own options in the address come after these and win.
    ///
    /// A plan that was made while the table was empty reads the whole table, and is kept while the table grows. That halved the rate of orders until the first
    /// ANALYZE. Every grouped statement looks rows up by a key.
    private static let indexOnly = "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off"
}
