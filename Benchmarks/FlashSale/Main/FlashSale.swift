import ArgumentParser
import FlashSaleKit
import Foundation
import NIOPosix

/// Exit statuses, for scripts.
enum Status {
    /// The sale was held and the audit passed.
    static let pass: Int32 = 0
    /// The sale was held and the audit failed.
    static let auditFailed: Int32 = 1
    /// The arguments or settings cannot be understood.
    static let usage: Int32 = 2
    /// The sale or the audit could not be held: a server, a store or the stack script failed.
    static let unavailable: Int32 = 3
    /// Interrupted.
    static let interrupted: Int32 = 130
}

/// `flash-sale`.
@main
enum Main {
    static func main() async {
        // Writing to a reader that went away is an error to handle, not a death.
        signal(SIGPIPE, SIG_IGN)
        var command: any ParsableCommand.Type = FlashSale.self
        do {
            // Told apart by hand: as a subcommand, `audit --product 7` would have its option taken by the sale's of the same name.
            let arguments = CommandLine.arguments.dropFirst()
            if arguments.first == "audit" {
                command = AuditOnly.self
                let audit = try AuditOnly.parse(Array(arguments.dropFirst()))
                try await audit.run()
            } else {
                let sale = try FlashSale.parse(Array(arguments))
                try await sale.run()
            }
        } catch let error as ExitCode {
            exit(error.rawValue)
        } catch let error as PlanError {
            fail(error.description, status: Status.usage)
        } catch {
            // Help and version come here too, with status 0.
            let code = command.exitCode(for: error)
            if code == .validationFailure { fail(command.fullMessage(for: error), status: Status.usage, prefix: false) }
            if code == .success {
                print(command.fullMessage(for: error))
                exit(Status.pass)
            }
            fail(String(describing: error), status: Status.unavailable)
        }
    }

    private static func fail(_ message: String, status: Int32, prefix: Bool = true) -> Never {
        FileHandle.standardError.write(Data(((prefix ? "flash-sale: " : "") + message + "\n").utf8))
        exit(status)
    }
}

/// `flash-sale`: the sale.
struct FlashSale: AsyncParsableCommand {
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
            them makes the product; PRODUCT_SERVICE_TOKEN is shown to it), PRODUCT_ADMIN_URL, PRODUCT_DATABASE_URL, ORDER_DATABASE_URL, REDIS_URL.

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
    @Option(help: "The script that owns the servers. (default: scripts/stack, if there is one)") var stack: String?
    @Option(help: "The gateway's address. (default: $GATEWAY_URL)") var gateway: String?
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
        let port = environment["GATEWAY_PORT"].map { "http://127.0.0.1:\($0)" }
        settings.gateway = gateway ?? environment["GATEWAY_URL"] ?? port ?? settings.gateway
        let servers = environment["PRODUCT_SERVER_URL"]?.split(separator: ",").first.map(String.init)
        settings.productServer = servers ?? environment["PRODUCT_PORT"].map { "http://127.0.0.1:\($0)" } ?? settings.productServer
        settings.serviceToken = environment["PRODUCT_SERVICE_TOKEN"].flatMap { $0.isEmpty ? nil : $0 }
        settings.productAdmin = environment["PRODUCT_ADMIN_URL"] ?? environment["PRODUCT_ADMIN_PORT"].map { "http://127.0.0.1:\($0)" }
        return settings
    }

    private func positive(_ text: String, _ name: String) throws -> Duration {
        let value = try Duration(span: text)
        guard value > .zero else { throw PlanError("\(name) must be above 0") }
        return value
    }

    func run() async throws {
        let script = Environment.script(stack)
        let environment = try await Environment.read(stack: script)
        let settings = try settings(environment: environment)
        if !settings.disruptions.isEmpty, script == nil {
            throw PlanError("taking servers away needs the script that owns them: --stack scripts/stack")
        }
        let eventLoop = MultiThreadedEventLoopGroup.singleton.next()
        let source = try Environment.source(environment)
        let console = Console.standard(isQuiet: quiet)
        let sale = Sale(settings: settings, stack: script, source: source, console: console, eventLoop: eventLoop)
        let result = try await interruptible { try await sale.run() }
        await source.close()

        let report = SaleReport(result)
        console.line("")
        for line in report.table { console.line(line) }
        if let json { try report.json().write(to: URL(fileURLWithPath: json)) }
        try conclude(result.audit, console: console)
        // Books that agree that nothing happened are no sale.
        if result.audit.confirmed == 0 {
            console.line("no order was confirmed: the servers sold nothing")
            throw ExitCode(Status.unavailable)
        }
    }
}

/// `flash-sale audit`.
struct AuditOnly: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "flash-sale audit",
        abstract: "Audits one product, without a sale.",
        discussion: "Waits until nothing is under way (at most --settle), then reads both databases and Redis. Exit status as for the sale."
    )

    @Option(help: "The product's id.") var product: Int64
    @Option(help: "For everything to come to rest.") var settle = "10s"
    @Option(help: "The script that owns the servers, asked for settings that the environment lacks.") var stack: String?

    func validate() throws {
        guard product >= 1 else { throw ValidationError("--product must be an id, 1 or more, not \(product)") }
        do {
            _ = try Duration(span: settle)
        } catch {
            throw ValidationError(String(describing: error))
        }
    }

    func run() async throws {
        let source = try Environment.source(try await Environment.read(stack: Environment.script(stack)))
        let console = Console.standard(isQuiet: false)
        let bound = try Duration(span: settle)
        let product = product
        let audit = try await interruptible {
            if try await source.product(product) != nil { _ = try await Audit.settle(source, product: product, bound: bound) }
            return try await Audit.run(source, product: product, load: nil)
        }
        await source.close()
        try conclude(audit, console: console)
    }
}

/// Prints what the audit found, and its line last.
private func conclude(_ audit: Audit, console: Console) throws {
    for finding in audit.findings { console.line(finding) }
    console.line(audit.line)
    if !audit.passes { throw ExitCode(Status.auditFailed) }
}

/// Runs `body` in a task that SIGINT and SIGTERM cancel; it gives back what it took away before it ends.
private func interruptible<Value: Sendable>(_ body: @escaping @Sendable () async throws -> Value) async throws -> Value {
    let task = Task { try await body() }
    let sources = [SIGINT, SIGTERM].map { number in
        signal(number, SIG_IGN)
        let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
        source.setEventHandler { task.cancel() }
        source.resume()
        return source
    }
    defer { for source in sources { source.cancel() } }
    do {
        return try await task.value
    } catch {
        if task.isCancelled { throw ExitCode(Status.interrupted) }
        throw error
    }
}

/// Where the settings come from.
private enum Environment {
    private static let needed = ["PRODUCT_DATABASE_URL", "ORDER_DATABASE_URL", "REDIS_URL"]

    /// The script given, else the usual one, if it is there.
    static func script(_ path: String?) -> StackScript? {
        let path = path ?? "scripts/stack"
        return FileManager.default.isExecutableFile(atPath: path) ? StackScript(path: path) : nil
    }

    /// The process's environment; what it lacks, from the script.
    static func read(stack: StackScript?) async throws -> [String: String] {
        let own = ProcessInfo.processInfo.environment
        if needed.allSatisfy({ own[$0] != nil }) { return own }
        guard let stack else { return own }
        return try await stack.environment().merging(own) { $1 }
    }

    static func source(_ environment: [String: String]) throws -> StoreReader {
        let missing = needed.filter { environment[$0] == nil }
        guard let products = environment[needed[0]], let orders = environment[needed[1]], let redis = environment[needed[2]] else {
            throw PlanError(
                "\(missing.joined(separator: ", ")) not set: the audit reads the stores itself. scripts/stack env prints the settings"
            )
        }
        return try StoreReader(
            productDatabase: products,
            orderDatabase: orders,
            redisURL: redis,
            eventLoopGroup: MultiThreadedEventLoopGroup.singleton
        )
    }
}
