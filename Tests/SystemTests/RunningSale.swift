import Eventually
import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix
import PostgresClient
import PrivateServers
import RedisClient
import Testing

@testable import FlashSaleKit

/// One product on sale through the gateway, under load until it is closed.
///
/// Beside the buyers somebody cancels confirmed orders all the time, so that stock also comes back while things fail. At the end most of the stock
/// is taken away by hand, so that what is left sells out under the same load: a unit sold twice would show.
///
/// Bounds: `buyers` orders in flight, one cancellation; every wait ends when nothing moves any more; `stock` is more than any test sells.
actor RunningSale {
    let stack: Stack
    let product: Int64
    private let name: String
    private let addresses: Stack.Addresses
    private let load: Load
    private let stores: StoreReader
    private let products: PostgresConnection
    private let orders: PostgresConnection
    private let redis: RedisClient
    private let client: Client
    private let opened = ContinuousClock.now
    private var cancelling: Task<[Int64], any Error>?
    private var notes: [String] = []

    /// Units on sale until the end.
    private static let stock = 1_000_000

    /// Puts a product on sale, lets the buyers in, runs `course` once the first hundred orders are confirmed, sells out, and audits.
    ///
    /// A course that fails is a failure of the test; everything is given back and the books are audited all the same, so that what was lost is told
    /// and the next test finds its servers.
    static func hold(
        _ name: String,
        buyers: Int = 32,
        seed: UInt64 = 1,
        _ course: @Sendable (RunningSale) async throws -> Void
    ) async throws {
        let sale = try await RunningSale(name, stack: Stack.current, buyers: buyers, seed: seed)
        var isWhole = true
        do {
            try await sale.sells(100, "the sale opens")
            try await course(sale)
        } catch {
            isWhole = false
            Issue.record("\(name): \(error)\n\(await sale.stack.logs())")
            try await sale.stack.run("start redis postgres gateway product order")
        }
        try await sale.close(sellsOut: isWhole)
    }

    private init(_ name: String, stack: Stack, buyers: Int, seed: UInt64) async throws {
        self.name = name
        self.stack = stack
        let addresses = try await stack.addresses()
        self.addresses = addresses
        let group = MultiThreadedEventLoopGroup.singleton
        stores = try StoreReader(
            productDatabase: addresses.address("PRODUCT_DATABASE_URL"),
            orderDatabase: addresses.address("ORDER_DATABASE_URL"),
            redisURL: addresses.address("REDIS_URL"),
            eventLoopGroup: group
        )
        products = try PostgresConnection(configuration: PostgresConfiguration.patient(addresses.address("PRODUCT_DATABASE_URL")))
        orders = try PostgresConnection(configuration: PostgresConfiguration.patient(addresses.address("ORDER_DATABASE_URL")))
        var redisSettings = try RedisConfiguration(url: addresses.address("REDIS_URL"))
        redisSettings.commandTimeout = .seconds(1)
        redis = RedisClient(configuration: redisSettings, eventLoopGroup: group)
        let gateway = try addresses.address("GATEWAY_URL")
        client = try await Client(gateway)
        let id = try await stack.addProduct(stock: Self.stock)
        product = id
        let plan = OrderPlan(
            product: id,
            quantity: 1,
            buyers: 1_000,
            orders: .max,
            units: Self.stock,
            arrivals: .concurrency(buyers),
            timeout: .seconds(5),
            retry: RetryPolicy(limit: 12),
            seed: seed,
            run: "system-\(UUID().uuidString.prefix(8))",
            budget: nil
        )
        load = try await Load.make(plan: plan, endpoint: HTTPEndpoint(gateway), eventLoop: group.next())
        try await load.open()
        let load = self.load
        let canceller = try await Client(gateway)
        cancelling = Task { try await Self.cancel(ordersOf: load, through: canceller) }
    }

    /// Cancels the newest confirmed order, again and again, until the task is cancelled. Returns the orders whose cancellation was confirmed.
    private static func cancel(ordersOf load: Load, through client: Client) async throws -> [Int64] {
        var cancelled: [Int64] = []
        var last: Int64?
        while !Task.isCancelled {
            if let order = try await load.peek().figures.confirmedOrders.last, order != last {
                last = order
                let answer = try? await client.call(.POST, "/order-service/orders/\(order)/cancel")
                if answer?.status == 200, answer?.json["status"] as? String == "CANCELLED" { cancelled.append(order) }
            }
            // The buyers need the machine: some forty cancellations a second at most.
            try? await Task.sleep(for: .milliseconds(25))
        }
        client.close()
        return cancelled
    }

    // MARK: While it runs

    var figures: LoadFigures {
        get async throws { try await load.peek().figures }
    }

    /// Waits until so many more orders are confirmed.
    /// - Returns: how long it took to the first of them
    @discardableResult
    func sells(_ orders: Int, _ when: String) async throws -> Duration {
        let before = try await figures.confirmed
        let began = ContinuousClock.now
        var first: Duration?
        try await eventuallyAtLeast(orders, "more orders confirmed, \(when)") {
            let now = try await figures
            if first == nil, now.confirmed > before { first = ContinuousClock.now - began }
            return now.confirmed - before
        }
        return first ?? .zero
    }

    /// Waits until so many more attempts were repeated: the fault is felt.
    func isFelt(_ repeats: Int = 10) async throws {
        let before = try await figures.retries
        try await eventuallyAtLeast(repeats, "attempts repeated") { try await figures.retries - before }
    }

    /// Runs one command of the stack script.
    @discardableResult
    func stack(_ command: String) async throws -> String { try await stack.run(command) }

    /// Remembers a finding for the line at the end.
    func note(_ text: String) { notes.append(text) }

    /// Waits for a state of `redisStock` on one product server.
    func breaker(of instance: Int = 1, is states: Set<String>, within bound: Duration = .seconds(90)) async throws {
        let admin = try await Client(try stack.address("PRODUCT", instance, "ADMIN_PORT"), timeout: .seconds(5))
        defer { admin.close() }
        try await until("redisStock of product-\(instance) is \(states.sorted().joined(separator: " or "))", within: bound) {
            await admin.breaker().map { states.contains($0) } ?? false
        }
    }

    /// The reservations that Redis holds of this product, by key.
    func reservations() async throws -> [String] {
        let reply = try await redis.send(RedisCommand("HKEYS", .string("sg:{\(product)}:pending")))
        return (reply.array ?? []).compactMap(\.string)
    }

    /// Of these keys, those that the ledger has.
    func committed(_ keys: [String]) async throws -> Int {
        let row = try await products.query("SELECT count(*) FROM stock_ledger WHERE request_id = any($1)", [.texts(keys)]).one()
        return Int(try row.decode(0, as: Int64.self))
    }

    /// Holds the product's row locked (or that of another one) while `body` runs, 60 s at most: nothing of it is committed meanwhile.
    @discardableResult
    func holdingTheRow<Found: Sendable>(of other: Int64? = nil, _ body: @Sendable () async throws -> Found) async throws -> Found {
        let name = Self.holder
        var configuration = try PostgresConfiguration.patient(addresses.address("PRODUCT_DATABASE_URL"))
        configuration.applicationName = name
        let connection = try PostgresConnection(configuration: configuration)
        let product = other ?? self.product
        // One statement, which holds the lock for as long as it sleeps, and ends by being cancelled.
        let sql = "SELECT pg_sleep(60) FROM (SELECT 1 FROM product_stock WHERE product_id = $1 FOR UPDATE) AS held"
        let holding = Task { try? await connection.query(sql, [.int(product)]) }
        let result: Result<Found, any Error>
        do {
            try await until("the row is held") { try await holdsTheRow() }
            result = .success(try await body())
        } catch {
            result = .failure(error)
        }
        _ = try await products.query("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = $1", [.text(name)])
        _ = await holding.value
        await connection.close()
        return try result.get()
    }

    private static let holder = "system-tests-holder"

    /// Whether ``holdingTheRow(of:_:)`` holds it now.
    func holdsTheRow() async throws -> Bool {
        let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND wait_event = 'PgSleep'"
        return try await products.query(sleeping, [.text(Self.holder)]).one().decode(0, as: Int64.self) == 1
    }

    /// Statements of the product servers that wait for a lock.
    func commitsWaiting() async throws -> Int64 {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'product-server%' AND wait_event_type = 'Lock'"
        return try await products.query(sql).one().decode(0, as: Int64.self)
    }

    /// PENDING orders.
    func pendingOrders() async throws -> Int { Int(try await stores.orderTotals(of: product).pending) }

    /// Waits until every order that was made before now is settled, by whichever server.
    /// - Returns: how long it took
    func settlesOrders() async throws -> Duration {
        let began = ContinuousClock.now
        let now = try await orders.query("SELECT now()").one().decode(0, as: PostgresTimestamp.self).microsecondsSinceEpoch
        try await eventuallyNone("of the orders made before the fault are PENDING") {
            let sql = "SELECT count(*) FROM orders WHERE product_id = $1 AND status = 'PENDING' AND created_at <= $2"
            return Int(try await orders.query(sql, [.int(product), .timestampMicros(now)]).one().decode(0, as: Int64.self))
        }
        return ContinuousClock.now - began
    }

    /// A command to Redis.
    func redis(_ command: RedisCommand) async throws -> RedisValue { try await redis.send(command) }

    /// Waits until no session of a server is left in PostgreSQL, so that what a killed one had sent is carried out or lost.
    func noSession(ofProducts isProducts: Bool) async throws {
        // Only the audit's sessions and this one's remain.
        let (connection, name) = isProducts ? (products, "product-server") : (orders, "stockgate-order")
        try await until("no session of \(name) is left") {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE $1 || '%'"
            return try await connection.query(sql, [.text(name)]).one().decode(0, as: Int64.self) == 0
        }
    }

    // MARK: The end

    /// Sells what is left down to the last unit, lets everything come to rest, and audits.
    private func close(sellsOut: Bool) async throws {
        do {
            if sellsOut {
                try await stack.takeAway(of: product, leaving: 300, stores: stores)
                try await eventuallyDone("sold out") {
                    let refused = try await figures.soldOut
                    // Units leave first, then buyers are refused.
                    let left = try await Int(stores.product(product)?.stock ?? 0)
                    return (refused >= 50, refused - left)
                }
            }
            try await load.stop()
            try await load.finished()
        } catch {
            // Also a sale that is stuck is audited.
            Issue.record("\(name): \(error)\n\(await stack.logs())")
            try await load.abandon()
        }
        cancelling?.cancel()
        let cancelled = try await cancelling?.value ?? []
        let restBegan = ContinuousClock.now
        // A cancellation that was cut off leaves a CONFIRMED order on recovery's list; the audit alone would not know that it is still under way.
        try await eventuallyNone("orders are left to recovery") {
            let sql = """
                SELECT count(*) FROM saga_work JOIN orders ON id = order_id
                WHERE status = 'PENDING' OR status = 'CONFIRMED' AND cancel_requested_at IS NOT NULL
                """
            return Int(try await orders.query(sql).one().decode(0, as: Int64.self))
        }
        let rests = try await Audit.settle(stores, product: product, bound: .seconds(120), interval: .milliseconds(150))
        let rest = ContinuousClock.now - restBegan
        let end = try await figures
        let audit = try await Audit.run(stores, product: product, load: end)
        let listed = """
            SELECT status, count(*), min(due_at - now())::text FROM saga_work JOIN orders ON id = order_id WHERE product_id = $1 GROUP BY 1
            """
        let left = try await orders.query(listed, [.int(product)])
        for row in left {
            notes.append(
                "on recovery's list, though settled: \(try row.decode(1, as: Int64.self)) \(try row.decode(0, as: String.self)), due in \(try row.decode(2, as: String.self))"
            )
        }
        print(
            "FAULT \(name): \(audit.line) \(notes.joined(separator: ", ")); orders \(end.orders), confirmed \(end.confirmed), cancelled \(cancelled.count), "
                + "repeats \(end.retries), given up \(end.errors), at rest after \(rest.text), all in \((ContinuousClock.now - opened).text)"
        )
        if !rests || !audit.passes {
            Issue.record("\(name): \(audit.line)\n\(audit.findings.joined(separator: "\n"))\n\(await stack.logs())")
        }
        #expect(audit.oversold == 0)
        #expect(end.failed == 0, "no order is refused for anything but too little stock: \(end.failReasons)")
        let sql = "SELECT count(*) FROM orders WHERE id = any($1) AND status = 'CANCELLED'"
        #expect(
            try await orders.query(sql, [.ints(cancelled)]).one().decode(0, as: Int64.self) == cancelled.count,
            "a confirmed cancellation is durable"
        )
        await stores.close()
        await products.close()
        await orders.close()
        await redis.shutdown()
        client.close()
    }
}

extension Stack {
    /// Takes most of the stock away by hand while the buyers go on.
    func takeAway(of product: Int64, leaving rest: Int64, stores: StoreReader) async throws {
        let admin = try await Client(try address("PRODUCT", 1, "ADMIN_PORT"))
        defer { admin.close() }
        var attempt = 0
        try await until("most of the stock is taken away") {
            guard let row = try await stores.product(product) else { return false }
            attempt += 1
            let answer = try await admin.call(
                .POST,
                "/admin/products/\(product)/stock-adjustments",
                json: "{\"quantity\":\(rest - row.stock),\"reason\":\"the rest is not for sale\"}",
                headers: [("Idempotency-Key", "ADJUST-\(product)-\(attempt)")]
            )
            // Refused when the buyers were quicker.
            return answer.status == 200
        }
    }
}

extension Duration {
    /// Seconds with two digits.
    var text: String {
        let hundredths = Int((inSeconds * 100).rounded())
        return "\(hundredths / 100).\(hundredths % 100 < 10 ? "0" : "")\(hundredths % 100) s"
    }
}
