import ArgumentParser
import FlashSaleKit
import Foundation
import NIOCore
import NIOPosix

/// `flash-sale`: the sale.
struct SaleCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "flash-sale",
        abstract: "Sells a hot product out under load, takes servers away meanwhile, and audits the books.",
        discussion: """
            Buyers order one product through the gateway, each order under an Idempotency-Key of its own; what is not clearly answered is sent again \
            under the same key. The audit that follows reads both databases and Redis itself: an audit asked of the servers under audit would prove less.

            Outages: START..END or START+LENGTH, each moment as time since the opening (4s) or as part of the units sold (30%): --outage 4s..9s, \
            --outage 30%+5s, --outage 25%..60%. The sale goes on at least until every outage is over and the breaker is CLOSED again. \
            So that there are units left to sell by then, a sale at the machine's own pace keeps a share of them for each part of the story \
            and slows its buyers when a share runs low (see --unbudgeted); the report tells the pace of the unslowed part apart.

            Settings from the environment, or from what `STACK env` prints: GATEWAY_URL (or GATEWAY_PORT), PRODUCT_SERVER_URL (the first of \
            them makes the product; PRODUCT_SERVICE_TOKEN is shown to it), PRODUCT_ADMIN_URL (ADMIN_TOKEN is shown to it), PRODUCT_DATABASE_URL, \
            ORDER_DATABASE_URL, REDIS_URL.

            Against any other gateway: --gateway https://shop.example --product 7 --no-audit, with --header for what it asks for.

            Exit status: 0 the audit passes; 1 it fails; 2 wrong arguments or settings; 3 the sale or the audit could not be held; 130 interrupted \
            (what was taken away is given back first).

            `flash-sale audit --product ID` audits one product without a sale; see `flash-sale audit --help`.
            """
    )

    @Option(help: "Units put on sale.") var units = 20_000
    @Option(help: "Orders to send at least.") var orders = 60_000
    @Option(help: "Closed loop: buyers that order again as soon as they are answered. (default: 128)") var concurrency: Int?
    @Option(help: "Open loop: orders a second that arrive as a Poisson process, such as 8000/s; latency counts from the intended moment.")
    var rate: String?
    @Option(help: "With --rate: orders under way at most; an arrival beyond that is shed and counted.") var inFlight = 1_024
    @Option(help: "Units an order asks for.") var quantity = 1
    @Option(help: "Buyers that orders are spread over.") var buyers = 10_000
    @Option(help: "Redis is taken away: START..END or START+LENGTH. May be given several times.") var outage: [String] = []
    @Option(help: "How: kill or pause.") var outageKind = "kill"
    @Option(help: "A server of the stack is killed and started again, such as product@5s..6s. May be given several times.") var kill:
        [String] = []
    @OptionGroup(title: "WHERE") var target: TargetOptions
    @Option(help: "Write the figures to this file as JSON.") var json: String?
    @Option(help: "Sell this product instead of a new one.") var product: Int64?
    @Option(help: "For one attempt of an order.") var timeout = "3s"
    @Option(help: "Repeats after an unclear answer.") var retries = 8
    @Option(help: "For everything to come to rest before the audit.") var settle = "60s"
    @Option(help: "The longest the sale may take.") var limit = "180s"
    @Option(help: "Chooses arrivals, buyers and jitter. (default: by the clock; printed with --rate)") var seed: UInt64?
    @Flag(
        help:
            "Orders go to /v2/orders: accepted first, decided over the broker. Both times are told; the audit waits until every order is decided."
    )
    var async = false
    @Flag(help: "Do not keep units for what comes after an outage: the machine's own pace throughout.") var unbudgeted = false
    @Option(help: "Run this between the sale and the audit, with PRODUCT_ID in its environment: to show that a broken ledger is found.")
    var beforeAudit: String?
    @Flag(help: "No live line and no story: the table and the audit alone.") var quiet = false

    func validate() throws {
        func check(_ name: String, _ value: Int, _ range: ClosedRange<Int>) throws {
            guard range.contains(value) else {
                throw ValidationError("--\(name) must be \(range.lowerBound) to \(range.upperBound), not \(value)")
            }
        }
        try check("units", units, 1...1_000_000_000)
        try check("orders", orders, 1...100_000_000)
        try check("concurrency", concurrency ?? 128, 1...10_000)
        try check("in-flight", inFlight, 1...10_000)
        try check("quantity", quantity, 1...1_000_000_000)
        try check("buyers", buyers, 1...1_000_000_000)
        try check("retries", retries, 0...100)
        if let product, product < 1 { throw ValidationError("--product must be an id, 1 or more, not \(product)") }
        if concurrency != nil, rate != nil { throw ValidationError("--concurrency and --rate exclude each other") }
        do {
            _ = try settings(environment: [:])
        } catch {
            throw ValidationError(String(describing: error))
        }
    }

    /// Everything but the addresses may be checked without an environment.
    private func settings(environment: [String: String]) throws -> SaleSettings {
        var settings = SaleSettings()
        settings.units = units
        settings.orders = orders
        settings.arrivals = try rate.map { .rate(try ArrivalRate($0), inFlight: inFlight) } ?? .concurrency(concurrency ?? 128)
        settings.quantity = quantity
        settings.buyers = buyers
        guard let kind = Disruption.Kind(rawValue: outageKind) else {
            throw PlanError("--outage-kind is kill or pause, not '\(outageKind)'")
        }
        settings.disruptions =
            try outage.map { try Disruption(server: "redis", kind: kind, span: $0) } + kill.map { try Disruption(kill: $0) }
        settings.product = product
        settings.timeout = try positive(timeout, "--timeout")
        settings.retries = retries
        settings.settle = try Duration(span: settle)
        settings.limit = try positive(limit, "--limit")
        settings.seed = seed ?? UInt64(Date.now.timeIntervalSince1970 * 1000)
        settings.isAsync = async
        settings.isUnbudgeted = unbudgeted
        settings.beforeAudit = beforeAudit
        try target.fill(&settings, environment: environment)
        return settings
    }

    private func positive(_ text: String, _ name: String) throws -> Duration {
        let value = try Duration(span: text)
        guard value > .zero else { throw PlanError("\(name) must be above 0") }
        return value
    }

    func run() async throws {
        let script = try Environment.script(target.stack)
        let environment = try await Environment.read(stack: script)
        let settings = try settings(environment: environment)
        let output = try json.map { try OutputFile($0) }
        let eventLoop = MultiThreadedEventLoopGroup.singleton.next()
        let (basis, reader) = try basis(settings, environment: environment, eventLoop: eventLoop)
        let console = Console.standard(isQuiet: quiet)
        let sale = Sale(settings: settings, stack: script, basis: basis, console: console, eventLoop: eventLoop)
        let result = try await interruptible { try await sale.run() }
        await reader?.close()

        let report = SaleReport(result)
        console.line("")
        for line in report.table { console.line(line) }
        try output?.write(report.json())
        try conclude(result.audit, console: console)
        // Books that agree that nothing happened are no sale.
        if result.audit.confirmed == 0 {
            console.line("no order was confirmed: the servers sold nothing")
            throw ExitCode(Status.unavailable)
        }
    }

    private func basis(
        _ settings: SaleSettings,
        environment: [String: String],
        eventLoop: any EventLoop
    ) throws -> (AuditBasis, StoreReader?) {
        switch target.basis {
        case .stores:
            let source = try Environment.source(environment)
            return (.stores(source), source)
        case .http:
            guard let admin = settings.productAdmin else { throw PlanError("--audit http needs --product-admin or PRODUCT_ADMIN_URL") }
            let books = HTTPBooks(
                admin: try HTTPEndpoint(admin, tls: settings.tls),
                adminToken: settings.adminToken,
                gateway: try HTTPEndpoint(settings.gateway, tls: settings.tls),
                headers: settings.headers,
                ordersPath: settings.orderPath ?? "/order-service/orders",
                eventLoop: eventLoop
            )
            return (.http(books), nil)
        case .none: return (.none, nil)
        }
    }
}
