import Foundation
import NIOPosix
import PostgresClient
import StockGateTestSupport
import Testing

@testable import FlashSaleKit

/// One product on sale through `POST /v2/orders`: orders are accepted at once and decided over the broker.
///
/// Buyers come at a rate of their own, whether or not the servers keep up, and repeat what got no clear answer under the same key. At the end most of
/// the stock is taken away by hand, so that what is left sells out under the same load. Then the load ends, everything must come to its end by itself,
/// and the books are audited.
///
/// Bounds: `inFlight` orders without an answer, further arrivals are turned away; every wait has a deadline; `stock` is more than any test sells.
actor AsyncSale {
    let stack: Stack
    let product: Int64
    let tally: AsyncTally
    private let name: String
    private let load: Load
    private let stores: StoreReader
    private let products: PostgresConnection
    let orders: PostgresConnection
    private let opened = ContinuousClock.now
    /// When the sale opened, by the order database's clock.
    private let openedAt: Int64
    private var notes: [String] = []
    private var isSoldOut = false
    private var sending: Duration?
    private var healing: Duration?

    /// Units on sale until the end.
    private static let stock = 1_000_000
    /// Orders without an answer at a time.
    private static let inFlight = 256
    /// For everything to be decided after the fault is over. Less than ASYNC_RECOVERY_AGE: messages do it, not recovery.
    static let bound = Duration.seconds(30)

    /// Puts a product on sale, lets the buyers in, runs `course` once the first orders are accepted, sells out, and audits.
    ///
    /// A course that fails is a failure of the test; everything is given back and the books are audited all the same.
    static func hold(
        _ name: String,
        rate: String = "800/s",
        seed: UInt64 = 1,
        _ course: @Sendable (AsyncSale) async throws -> Void
    ) async throws {
        let sale = try await AsyncSale(name, stack: Stack.current, rate: rate, seed: seed)
        do {
            try await sale.accepts(200, "the sale opens")
            try await course(sale)
        } catch {
            Issue.record("\(name): \(error)\n\(await sale.stack.logs())")
            try await sale.stack.broker?.orders.heal()
            try await sale.stack.broker?.products.heal()
            try await sale.stack.run("start redis postgres gateway rabbitmq product order")
        }
        try await sale.close()
    }

    private init(_ name: String, stack: Stack, rate: String, seed: UInt64) async throws {
        self.name = name
        self.stack = stack
        let addresses = try await stack.addresses()
        let group = MultiThreadedEventLoopGroup.singleton
        stores = try StoreReader(
            productDatabase: addresses.address("PRODUCT_DATABASE_URL"),
            orderDatabase: addresses.address("ORDER_DATABASE_URL"),
            redisURL: addresses.address("REDIS_URL"),
            eventLoopGroup: group
        )
        products = try PostgresConnection(configuration: PostgresConfiguration(url: addresses.address("PRODUCT_DATABASE_URL")))
        orders = try PostgresConnection(configuration: PostgresConfiguration(url: addresses.address("ORDER_DATABASE_URL")))
        openedAt = try await orders.query("SELECT now()").one().timestampMicros(0)
        let gateway = try addresses.address("GATEWAY_URL")
        let id = try await stack.addProduct(stock: Self.stock)
        product = id
        tally = try await AsyncTally(stack)
        await tally.begin()
        let plan = OrderPlan(
            product: id,
            quantity: 1,
            buyers: 1_000,
            orders: .max,
            units: Self.stock,
            arrivals: .rate(try ArrivalRate(rate), inFlight: Self.inFlight),
            timeout: .seconds(5),
            retry: RetryPolicy(limit: 16),
            seed: seed,
            run: "async-\(UUID().uuidString.prefix(8))",
            budget: nil,
            isAsync: true
        )
        load = try await Load.make(plan: plan, endpoint: HTTPEndpoint(gateway), eventLoop: group.next())
        try await load.open()
    }

    // MARK: While it runs

    var figures: LoadFigures {
        get async throws { try await load.peek().figures }
    }

    /// Orders that buyers were told are accepted.
    var accepted: Int {
        get async throws { try await figures.acceptedOrders.count }
    }

    /// Waits until so many more orders are accepted.
    func accepts(_ count: Int, _ when: String, within bound: Duration = .seconds(20)) async throws {
        let before = try await accepted
        try await until("\(count) more orders accepted, \(when)", within: bound) { try await accepted >= before + count }
    }

    /// Runs one command of the stack script.
    @discardableResult
    func stack(_ command: String) async throws -> String { try await stack.run(command) }

    /// Remembers a finding for the line at the end.
    func note(_ text: String) { notes.append(text) }

    /// The product's PENDING orders.
    func pendingOrders() async throws -> Int { Int(try await stores.orderTotals(of: product).pending) }

    /// The fault is over: waits until every order that was accepted before now is decided.
    /// - Returns: how long it took
    @discardableResult
    func heals(within bound: Duration = AsyncSale.bound) async throws -> Duration {
        let began = ContinuousClock.now
        let now = try await orders.query("SELECT now()").one().timestampMicros(0)
        try await until("the commands of the orders accepted before are sent", within: bound) {
            let sql = "SELECT count(*) FROM outbox WHERE product_id = $1 AND status IN ('NEW', 'FAILED') AND created_at <= $2"
            return try await orders.query(sql, [.int(product), .timestampMicros(now)]).one().int(0) == 0
        }
        sending = ContinuousClock.now - began
        try await until("PENDING = 0 of the orders accepted before", within: bound) {
            let sql = "SELECT count(*) FROM orders WHERE product_id = $1 AND status = 'PENDING' AND created_at <= $2"
            return try await orders.query(sql, [.int(product), .timestampMicros(now)]).one().int(0) == 0
        }
        healing = ContinuousClock.now - began
        return ContinuousClock.now - began
    }

    /// Commands of this product's outbox that are in one of these states, and have been published so often at least.
    func commands(_ statuses: [String], attempts: Int64 = 0) async throws -> Int {
        let sql = "SELECT count(*) FROM outbox WHERE product_id = $1 AND status = any($2) AND attempts >= $3"
        return Int(try await orders.query(sql, [.int(product), .texts(statuses), .int(attempts)]).one().int(0))
    }

    /// Has every message of this sale that was sent until now sent again, the events' too.
    /// - Returns: how many commands
    func sendsAllAgain() async throws -> Int {
        let sql = """
            WITH again AS (
                UPDATE outbox SET status = 'NEW', sent_at = NULL, checked_at = NULL
                WHERE status = 'SENT' AND (product_id = $1 OR product_id IS NULL AND created_at >= $2) RETURNING product_id
            )
            SELECT count(product_id) FROM again
            """
        return Int(try await orders.query(sql, [.int(product), .timestampMicros(openedAt)]).one().int(0))
    }

    /// Takes most of the stock away, and waits until the rest is sold and buyers are refused.
    func sellsOut() async throws {
        guard !isSoldOut else { return }
        isSoldOut = true
        try await stack.takeAway(of: product, leaving: 300, stores: stores)
        try await until("sold out", within: .seconds(40)) {
            let refused = try await figures.soldOut
            return try await Int(stores.orderTotals(of: product).failed) + refused >= 50
        }
    }

    // MARK: The end

    private func close() async throws {
        do {
            try await sellsOut()
            try await load.stop()
            try await load.finished()
        } catch {
            // Also a sale that is stuck is audited.
            Issue.record("\(name): \(error)\n\(await stack.logs())")
            try await load.abandon()
        }
        let closed = ContinuousClock.now
        do {
            try await until("PENDING = 0 after the last order", within: Self.bound) { try await pendingOrders() == 0 }
            try await until("the outbox is sent", within: Self.bound) { try await !stores.hasWaitingMessages() }
            try await until("recovery has settled every order", within: Self.bound) {
                try await orders.query("SELECT count(*) FROM saga_work JOIN orders ON id = order_id WHERE status = 'PENDING'").one().int(0)
                    == 0
            }
        } catch {
            Issue.record("\(name): \(error)\n\(await stack.logs())")
        }
        let rests = try await Audit.settle(stores, product: product, bound: Self.bound, interval: .milliseconds(150))
        let rest = ContinuousClock.now - closed
        // The last duplicates may still be on their way to the order servers.
        try await audit(rests: rests, rest: rest)
        await tally.close()
        await stores.close()
        await products.close()
        await orders.close()
    }

    private func audit(rests: Bool, rest: Duration) async throws {
        var end = try await figures
        let accepted = end.acceptedOrders
        end.learn(try await Drain.read(stores, product: product, accepted: accepted))
        let audit = try await Audit.run(stores, product: product, load: end, outbox: try await stores.outbox(of: product))
        await tally.look()
        let redelivered = await tally.total("stockgate_commands_redelivered_total")
        let republished = await tally.total("stockgate_commands_republished_total")
        let duplicates = await tally.total("stockgate_command_orders_total", where: "\"duplicate\"")
        let results = await tally.total("order_results_duplicate_total")
        let unexpected = await tally.total("order_results_unexpected_total")
        let poison = await tally.total("stockgate_commands_poison_total") + tally.total("order_results_poison_total")
        let twice = """
            SELECT count(*) FROM (
                SELECT FROM stock_ledger WHERE product_id = $1 AND reason = 'ORDER_DECREMENT' AND direction = 'OUT'
                GROUP BY order_id HAVING count(*) > 1
            ) AS twice
            """
        let applied = try await products.query(twice, [.int(product)]).one().int(0)
        print(
            "ASYNC FAULT \(name): accepted \(accepted.count), commands delivered again \(redelivered) and published again \(republished), "
                + "orders decided twice \(duplicates), applied twice \(applied), results twice \(results), unexpected \(unexpected); "
                + "sent \(sending?.text ?? "-") and PENDING = 0 \(healing?.text ?? "-") after the fault, at rest \(rest.text) after the last order; \(audit.line); "
                + "\(notes.map { "\($0), " }.joined())refused at once \(end.phases.reduce(0) { $0 + $1.soldOut }), confirmed \(end.confirmed), failed "
                + "\(end.failReasons), repeats \(end.retries) \(end.retryCauses), given up \(end.errors), turned away \(end.shed), "
                + "all in \((ContinuousClock.now - opened).text)"
        )
        if !rests || !audit.passes {
            Issue.record("\(name): \(audit.line)\n\(audit.findings.joined(separator: "\n"))\n\(await stack.logs())")
        }
        #expect(applied == 0)
        #expect(unexpected == 0)
        #expect(poison == 0)
        #expect(end.failed == 0, "no order is refused for anything but too little stock: \(end.failReasons)")
        #expect(Set(accepted).count == accepted.count, "each key has an order of its own")
        let known = "SELECT count(*) FILTER (WHERE status IN ('CONFIRMED', 'FAILED')), count(*) FROM orders WHERE id = any($1)"
        let row = try await orders.query(known, [.ints(accepted)]).one()
        let (final, there) = (try row.int(0), try row.int(1))
        #expect(final == accepted.count, "every accepted order is there and final; \(there) are there")
        let made = try await orders.query("SELECT count(*) FROM orders WHERE product_id = $1", [.int(product)]).one().int(0)
        #expect(made >= accepted.count && made <= accepted.count + end.errors, "\(made) orders for \(accepted.count) accepted keys")
    }
}
