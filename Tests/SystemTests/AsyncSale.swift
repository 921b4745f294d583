import Eventually
import Foundation
import NIOPosix
import PostgresClient
import PrivateServers
import Testing

@testable import FlashSaleKit

/// One product on sale through `POST /v2/orders`: orders are accepted at once and decided over the broker.
///
/// Buyers come at a rate of their own, whether or not the servers keep up, and repeat what got no clear answer under the same key. The rate is a share of what
/// the machine has just sustained: a slow machine is not asked for more than it can do, beside the fault. At the end most of the stock is taken away by hand, so
/// that what is left sells out under the same load. Then the load ends, everything must come to its end by itself, and the books are audited.
///
/// Bounds: `inFlight` orders without an answer, further arrivals are turned away; every wait ends when nothing moves any more; `stock` is more than any test sells.
actor AsyncSale {
    let stack: Stack
    let product: Int64
    /// Orders that arrive a second.
    let rate: Double
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
    /// The part of what the machine sustains that arrives in a sale: the rest is for the fault, for what is done again after it, and for the tests.
    private static let share = 1.0 / 3
    /// More than this a second shows nothing more, on a machine however fast.
    private static let highestRate = 800.0
    /// With less than this a second there is nothing to see of a fault that lasts a second.
    private static let lowestRate = 20.0

    /// Puts a product on sale, lets the buyers in, runs `course` once the first orders are accepted, sells out, and audits.
    ///
    /// A course that fails is a failure of the test; everything is given back and the books are audited all the same.
    static func hold(
        _ name: String,
        seed: UInt64 = 1,
        _ course: @Sendable (AsyncSale) async throws -> Void
    ) async throws {
        let stack = try Stack.current
        let sustained = try await sustained(by: stack)
        let rate = min(max(sustained * share, lowestRate), highestRate)
        let sale = try await AsyncSale(name, stack: stack, rate: rate, seed: seed)
        await sale.note("\(Int(rate)) orders/s of \(Int(sustained)) that the machine sustains")
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

    /// Orders a second that this machine decides over the broker just now, from the first one's arrival to the last one's result.
    ///
    /// Two seconds of buyers who come as fast as they are answered, and the time until all of theirs is decided.
    private static func sustained(by stack: Stack) async throws -> Double {
        let addresses = try await stack.addresses()
        let orders = try PostgresConnection(configuration: PostgresConfiguration.patient(addresses.address("ORDER_DATABASE_URL")))
        let product = try await stack.addProduct("Measured", stock: stock)
        let plan = OrderPlan(
            product: product,
            quantity: 1,
            buyers: 1_000,
            orders: .max,
            units: stock,
            arrivals: .concurrency(32),
            timeout: .seconds(5),
            retry: RetryPolicy(limit: 16),
            seed: 1,
            run: "measure-\(UUID().uuidString.prefix(8))",
            budget: nil,
            isAsync: true
        )
        let endpoint = try HTTPEndpoint(addresses.address("GATEWAY_URL"))
        let load = try await Load.make(plan: plan, endpoint: endpoint, eventLoop: MultiThreadedEventLoopGroup.singleton.next())
        let began = ContinuousClock.now
        try await load.open()
        // Two seconds, and as long as a slow machine takes for the first orders.
        try await eventuallyDone("orders are accepted to measure the machine") {
            let accepted = try await load.peek().figures.acceptedOrders.count
            return (accepted >= 50 && ContinuousClock.now >= began + .seconds(2), accepted)
        }
        try await load.stop()
        try await load.finished()
        try await eventuallyNone("orders to measure the machine are PENDING") {
            let sql = "SELECT count(*) FROM orders WHERE product_id = $1 AND status = 'PENDING'"
            return Int(try await orders.query(sql, [.int(product)]).one().decode(0, as: Int64.self))
        }
        let took = (ContinuousClock.now - began).inSeconds
        await orders.close()
        return Double(try await load.peek().figures.acceptedOrders.count) / took
    }

    private init(_ name: String, stack: Stack, rate: Double, seed: UInt64) async throws {
        self.name = name
        self.stack = stack
        self.rate = rate
        let addresses = try await stack.addresses()
        let group = MultiThreadedEventLoopGroup.singleton
        stores = try StoreReader(
            productDatabase: addresses.address("PRODUCT_DATABASE_URL"),
            orderDatabase: addresses.address("ORDER_DATABASE_URL"),
            redisURL: addresses.address("REDIS_URL"),
            eventLoopGroup: group
        )
        products = try PostgresConnection(configuration: PostgresConfiguration.patient(addresses.address("PRODUCT_DATABASE_URL")))
        orders = try PostgresConnection(configuration: PostgresConfiguration.patient(addresses.address("ORDER_DATABASE_URL")))
        openedAt = try await orders.query("SELECT now()").one().decode(0, as: PostgresTimestamp.self).microsecondsSinceEpoch
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
            arrivals: .rate(try ArrivalRate("\(rate)/s"), inFlight: Self.inFlight),
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

    /// Runs `body` while a transaction holds the product's row and a product server's statement waits for it. A server that is killed meanwhile commits all the same,
    /// since PostgreSQL goes on with a statement whose client has gone.
    func holdingTheRow(_ body: @Sendable () async throws -> Void) async throws {
        let url = try await stack.addresses().address("PRODUCT_DATABASE_URL")
        let row = try await RowLock(url: url, "select 1 from product_stock where product_id = \(product) for update")
        let waiting = "select count(*) from pg_stat_activity where application_name like 'product-server%' and wait_event_type = 'Lock'"
        do {
            try await until("a product server waits for the row") { try await products.query(waiting).one().decode(0, as: Int64.self) > 0 }
            try await body()
        } catch {
            await row.end()
            throw error
        }
        await row.end()
    }

    /// Waits until so many more orders are accepted.
    func accepts(_ count: Int, _ when: String) async throws {
        let before = try await accepted
        try await eventuallyAtLeast(count, "more orders accepted, \(when)") { try await accepted - before }
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
    func heals() async throws -> Duration {
        let began = ContinuousClock.now
        let now = try await orders.query("SELECT now()").one().decode(0, as: PostgresTimestamp.self).microsecondsSinceEpoch
        try await eventuallyNone("commands of the orders accepted before are unsent") {
            let sql = "SELECT count(*) FROM outbox WHERE product_id = $1 AND status IN ('NEW', 'FAILED') AND created_at <= $2"
            return Int(try await orders.query(sql, [.int(product), .timestampMicros(now)]).one().decode(0, as: Int64.self))
        }
        sending = ContinuousClock.now - began
        try await eventuallyNone("of the orders accepted before are PENDING") {
            let sql = "SELECT count(*) FROM orders WHERE product_id = $1 AND status = 'PENDING' AND created_at <= $2"
            return Int(try await orders.query(sql, [.int(product), .timestampMicros(now)]).one().decode(0, as: Int64.self))
        }
        healing = ContinuousClock.now - began
        return ContinuousClock.now - began
    }

    /// Commands of this product's outbox that are in one of these states, and have been published so often at least.
    func commands(_ statuses: [String], attempts: Int64 = 0) async throws -> Int {
        let sql = "SELECT count(*) FROM outbox WHERE product_id = $1 AND status = any($2) AND attempts >= $3"
        return Int(try await orders.query(sql, [.int(product), .texts(statuses), .int(attempts)]).one().decode(0, as: Int64.self))
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
        return Int(try await orders.query(sql, [.int(product), .timestampMicros(openedAt)]).one().decode(0, as: Int64.self))
    }

    /// Takes most of the stock away, and waits until the rest is sold and buyers are refused.
    func sellsOut() async throws {
        guard !isSoldOut else { return }
        isSoldOut = true
        try await stack.takeAway(of: product, leaving: 300, stores: stores)
        try await eventuallyDone("sold out") {
            let refused = try await Int(stores.orderTotals(of: product).failed) + figures.soldOut
            // Units leave first, then buyers are refused.
            let left = try await Int(stores.product(product)?.stock ?? 0)
            return (refused >= 50, refused - left)
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
            try await eventuallyNone("orders are PENDING after the last one") { try await pendingOrders() }
            try await eventuallyNone("messages of the outbox are unsent") {
                Int(try await orders.query("SELECT count(*) FROM outbox WHERE status IN ('NEW', 'FAILED')").one().decode(0, as: Int64.self))
            }
            try await eventuallyNone("orders are left to recovery") {
                Int(
                    try await orders.query("SELECT count(*) FROM saga_work JOIN orders ON id = order_id WHERE status = 'PENDING'").one()
                        .decode(0, as: Int64.self)
                )
            }
        } catch {
            Issue.record("\(name): \(error)\n\(await stack.logs())")
        }
        let rests = try await Audit.settle(stores, product: product, bound: .seconds(120), interval: .milliseconds(150))
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
        let results = await tally.total("stockgate_order_results_duplicate_total")
        let unexpected = await tally.total("stockgate_order_results_unexpected_total")
        let poison = await tally.total("stockgate_commands_poison_total") + tally.total("stockgate_order_results_poison_total")
        let twice = """
            SELECT count(*) FROM (
                SELECT FROM stock_ledger WHERE product_id = $1 AND reason = 'ORDER_DECREMENT' AND direction = 'OUT'
                GROUP BY order_id HAVING count(*) > 1
            ) AS twice
            """
        let applied = try await products.query(twice, [.int(product)]).one().decode(0, as: Int64.self)
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
        let (final, there) = (try row.decode(0, as: Int64.self), try row.decode(1, as: Int64.self))
        #expect(final == accepted.count, "every accepted order is there and final; \(there) are there")
        let made = try await orders.query("SELECT count(*) FROM orders WHERE product_id = $1", [.int(product)]).one().decode(
            0,
            as: Int64.self
        )
        #expect(made >= accepted.count && made <= accepted.count + end.errors, "\(made) orders for \(accepted.count) accepted keys")
    }
}
