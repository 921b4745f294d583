import CircuitBreaker
import Eventually
import NIOCore
import NIOPosix
import PostgresClient
import RedisClient
import StockGate
import PrivateServers
import Synchronization
import Testing

extension StockEngine {
    /// The breaker of an only Redis.
    var breaker: CircuitBreaker { breakers[0] }
}

/// Runs `body` with servers of its own, which are stopped behind it.
func withFixture(
    _ redisOptions: [String] = [],
    database: String = "postgres",
    _ body: (EngineFixture) async throws -> Void
) async throws {
    let fixture = try await EngineFixture(database: database, redisOptions: redisOptions)
    do {
        try await body(fixture)
    } catch {
        await fixture.stop()
        throw error
    }
    await fixture.stop()
}

/// Servers of their own, and engines on them.
final class EngineFixture: Sendable {
    let postgres: PrivatePostgres
    let redis: PrivateRedis
    private let engines = Mutex<[(engine: StockEngine, run: Task<Void, Never>)]>([])
    private let admin: PostgresPool
    private let databaseURL: String

    init(database: String = "postgres", redisOptions: [String] = [], redisTLS: PrivateCertificates.Port? = nil) async throws {
        postgres = try PrivatePostgres.start(fsync: false)
        redis = try PrivateRedis.start(options: ["--save", ""] + redisOptions, tls: redisTLS)
        if database != "postgres" {
            let first = try PostgresConnection(configuration: PostgresConfiguration.patient(postgres.url), name: "create")
            _ = try await first.withSession { session in try session.query("create database \(database)") }
        }
        databaseURL = String(postgres.url.dropLast("postgres".count)) + database
        let configuration = try PostgresConfiguration.patient(databaseURL)
        _ = try await Migrator(configuration: configuration).apply(
            LedgerMigrations.all.map { Migration(version: $0.version, name: $0.name, sql: $0.sql) }
        )
        admin = PostgresPool(configuration: configuration, maximumConnections: 2)
    }

    /// One more server process, so to speak.
    func startEngine(
        _ change: (inout EngineConfiguration) -> Void = { _ in },
        onEvent: @escaping @Sendable (EngineEvent) -> Void = { _ in }
    ) async throws -> StockEngine {
        let engine = try await makeEngine(change, onEvent: onEvent)
        // As a server does, which tries to start for as long as its database does not answer in time.
        try await eventually("the engine starts") {
            try await engine.start()
            return true
        }
        let run = Task { await engine.run() }
        engines.withLock { $0.append((engine, run)) }
        return engine
    }

    /// An engine that has not been started. Its owner shuts it down.
    func makeEngine(
        _ change: (inout EngineConfiguration) -> Void = { _ in },
        onEvent: @escaping @Sendable (EngineEvent) -> Void = { _ in }
    ) async throws -> StockEngine {
        var postgresConfiguration = try PostgresConfiguration(url: databaseURL)
        postgresConfiguration.maximumBackoff = .milliseconds(100)
        // A server that is away refuses; only a busy machine needs this time.
        postgresConfiguration.connectTimeout = .seconds(20)
        postgresConfiguration.statementTimeout = .seconds(20)
        postgresConfiguration.callTimeout = .seconds(25)
        let breaker = try CircuitBreakerConfiguration { values in
            values.window = .time(seconds: 2)
            values.minimumNumberOfCalls = 5
            values.waitInOpen = .constant(.milliseconds(200))
            values.movesToHalfOpenByItself = true
            values.permittedCallsInHalfOpen = 3
            values.maximumTimeInHalfOpen = .seconds(5)
        }
        var redisSettings = try RedisConfiguration(url: redis.url)
        // A busy machine must look neither like a slow Redis nor like a slow ledger. A Redis that is away refuses, and needs none of this time.
        redisSettings.commandTimeout = .seconds(5)
        redisSettings.silenceLimit = .seconds(10)
        redisSettings.connectTimeout = .seconds(10)
        redisSettings.preparationTimeout = .seconds(10)
        var configuration = EngineConfiguration(
            ledger: LedgerConfiguration(postgres: postgresConfiguration),
            redis: redisSettings,
            breaker: breaker
        )
        configuration.backgroundTimeout = .seconds(3)
        configuration.resyncWait = .seconds(10)
        configuration.pendingBound = .milliseconds(500)
        configuration.sweepInterval = .milliseconds(200)
        configuration.auditInterval = .milliseconds(500)
        configuration.gatedRefresh = .milliseconds(200)
        configuration.answerWithin = .seconds(30)
        change(&configuration)
        return try StockEngine(configuration, eventLoopGroup: MultiThreadedEventLoopGroup.singleton, onEvent: onEvent)
    }

    func stop() async {
        for (engine, run) in engines.withLock({ $0 }) {
            run.cancel()
            await engine.shutdown()
        }
        await admin.shutdown()
        redis.stop()
        postgres.stop()
    }

    func addProduct(_ id: Int64, stock: Int64, gated: Bool = true) async throws -> ProductID {
        _ = try await admin.query(
            "insert into product_stock (product_id, stock, initial_stock, is_gated) values ($1, $2, $2, $3)",
            [.int(id), .int(stock), .bool(gated)]
        )
        return ProductID(id)
    }

    /// Products 1 to `count`, gated.
    func addProducts(_ count: Int64, stock: Int64) async throws {
        _ = try await admin.query(
            "insert into product_stock (product_id, stock, initial_stock, is_gated) select n, $2, $2, true from generate_series(1, $1) n",
            [.int(count), .int(stock)]
        )
    }

    /// Runs one statement as somebody else would.
    func sql(_ text: String) async throws { _ = try await admin.query(text) }

    /// The fence of each product.
    func fences() async throws -> [ProductID: Int64] {
        var fences: [ProductID: Int64] = [:]
        for row in try await admin.query("select product_id, fence from product_stock") {
            fences[ProductID(try row.decode(0, as: Int64.self))] = try row.decode(1, as: Int64.self)
        }
        return fences
    }

    /// Runs `body` while somebody's open transaction holds the product's row.
    func holdingTheRow(of product: ProductID, _ body: () async throws -> Void) async throws {
        var configuration = try PostgresConfiguration.patient(postgres.url)
        configuration.applicationName = "holder"
        let holder = try PostgresConnection(configuration: configuration)
        // One statement, which holds the lock for as long as it sleeps, and ends by being cancelled.
        let sql = "select pg_sleep(120) from (select 1 from product_stock where product_id = $1 for update) as held"
        let holding = Task { try? await holder.query(sql, [.int(product.rawValue)]) }
        let isHeld = try await eventually {
            try await !admin.query("select 1 from pg_stat_activity where application_name = 'holder' and wait_event = 'PgSleep'").isEmpty
        }
        #expect(isHeld)
        let result: Result<Void, any Error>
        do {
            result = .success(try await body())
        } catch {
            result = .failure(error)
        }
        _ = try await admin.query("select pg_cancel_backend(pid) from pg_stat_activity where application_name = 'holder'")
        _ = await holding.value
        await holder.close()
        try result.get()
    }

    /// Units that the ledger says were sold less those that came back, and the stock.
    func books(_ product: ProductID) async throws -> (sold: Int64, stock: Int64, rows: Int64) {
        let row = try await admin.query(
            """
            select coalesce((select sum(case direction when 'OUT' then quantity when 'IN' then -quantity else 0 end)
              from stock_ledger where product_id = $1), 0)::bigint,
              stock, (select count(*) from stock_ledger where product_id = $1 and direction = 'OUT') from product_stock where product_id = $1
            """,
            [.int(product.rawValue)]
        ).one()
        return (try row.decode(0, as: Int64.self), try row.decode(1, as: Int64.self), try row.decode(2, as: Int64.self))
    }

    /// Whether Redis serves exactly PostgreSQL's stock, under its fence, with nothing pending.
    func isExact(_ product: ProductID, _ engine: StockEngine) async throws -> Bool {
        guard let (ledger, gate) = try await engine.audit(product), let gate else { return false }
        return gate.isLoaded && gate.fence == ledger.fence && gate.counter == ledger.stock && gate.pending == 0
    }
}

/// Buyers of one unit each, and what they were told.
struct Rush {
    var sold: [String] = []
    var refused = 0
    var unknown: [String] = []

    /// Sends `orders` decreases with so many at a time. One that is told *unavailable* asks again with the same key, as a repeat, for as long as `patience`: a
    /// server that is started again takes a busy machine its time.
    static func run(
        _ engine: StockEngine,
        _ product: ProductID,
        orders: Range<Int64>,
        concurrency: Int = 64,
        patience: Duration = .seconds(90),
        progress: @escaping @Sendable (Int64) -> Void = { _ in }
    ) async -> Rush {
        let next = OrderNumbers(orders)
        return await withTaskGroup(of: Rush.self) { group in
            for _ in 0..<concurrency {
                group.addTask {
                    var rush = Rush()
                    while true {
                        guard let order = next.take() else { return rush }
                        progress(order)
                        let key = "DEC-\(order)"
                        var isRepeat = false
                        let end = ContinuousClock.now + patience
                        asking: while true {
                            let answer = await engine.decrease(
                                DecreaseRequest(product: product, key: key, orderID: order, quantity: 1, isRepeat: isRepeat)
                            )
                            switch answer {
                            case .sold: rush.sold.append(key)
                            case .insufficient: rush.refused += 1
                            case .unavailable where ContinuousClock.now < end:
                                isRepeat = true
                                try? await Task.sleep(for: .milliseconds(50))
                                continue asking
                            case .unavailable: rush.unknown.append(key)
                            default: Issue.record("order \(order) was told \(answer)")
                            }
                            break
                        }
                    }
                }
            }
            var all = Rush()
            for await rush in group {
                all.sold += rush.sold
                all.refused += rush.refused
                all.unknown += rush.unknown
            }
            return all
        }
    }
}

/// Hands out each order number once.
private final class OrderNumbers: Sendable {
    private let rest: Mutex<Range<Int64>>

    init(_ orders: Range<Int64>) { rest = Mutex(orders) }

    func take() -> Int64? {
        rest.withLock { rest in
            guard let first = rest.first else { return nil }
            rest = first + 1..<rest.upperBound
            return first
        }
    }
}
