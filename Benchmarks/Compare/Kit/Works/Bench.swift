import FlashSaleKit
import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix
import PostgresClient
import RedisClient

/// The servers under measurement, and one run of a load.
///
/// Invariant: a sample exists only of a run whose every answer had the status that it should have and whose books were in order afterwards.
struct Bench: Sendable {
    /// Why the comparison cannot go on.
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    static let plenty: Int64 = 1_000_000_000

    let files: String
    let environment: [String: String]
    let peers: PeerStand
    /// Order server with `EVENT_LIMIT=0`.
    let plainOrders: ChildProcess
    let plainPort: Int
    let books: StoreReader
    let product: HTTPCaller
    let productAdmin: HTTPCaller
    let orderAdmin: HTTPCaller
    let ticksPerSecond = ProcessTimes.ticksPerSecond
    /// The load generator's own loop: nothing else of this process runs there.
    let loadLoop: any EventLoop

    /// Closes its own connections.
    func close() async {
        await books.close()
        for caller in [product, productAdmin, orderAdmin] { caller.close() }
    }

    // MARK: Processes

    /// The processes that do a side's work, by group.
    ///
    /// - Parameter servers: the project's servers that are measured, by process; nil for the stack's own, and the order server without events.
    func roots(_ side: Side, servers: [Int: String]? = nil) throws -> [Int: String] {
        var roots: [Int: String] = [Int(getpid()): Group.load]
        func stack(_ name: String) throws -> Int {
            let folder = environment["STACK_DIR"] ?? ""
            let record = (try? String(contentsOfFile: "\(folder)/\(name)/pid", encoding: .utf8)) ?? ""
            guard let pid = record.split(separator: " ").first.flatMap({ Int($0) }) else {
                throw Failure(description: "the stack has no \(name): \(folder)/\(name)/pid")
            }
            return pid
        }
        // What runs beside the side that is measured is neither its work nor other work of the machine.
        let idle = "idle"
        for name in ["product-1", "rabbitmq"] { roots[try stack(name)] = idle }
        if servers == nil { for name in ["order-1", "gateway"] { roots[try stack(name)] = idle } }
        for name in PeerStand.Name.allCases { if let pid = peers.pid(name) { roots[pid] = idle } }
        roots[Int(plainOrders.pid)] = idle
        roots[try stack("redis")] = "redis"
        roots[try stack("postgres")] = "postgres"
        func peer(_ name: PeerStand.Name, _ group: String) { if let pid = peers.pid(name) { roots[pid] = group } }
        switch side {
        case .stockGate where servers != nil:
            roots.merge(servers ?? [:]) { $1 }
            roots[try stack("rabbitmq")] = "rabbitmq"
        case .stockGate, .gateway, .plain:
            roots[try stack("product-1")] = "product"
            roots[try stack("order-1")] = "order"
            // Both order servers relay messages: what one of them accepts, the other may send.
            roots[Int(plainOrders.pid)] = "order"
            roots[try stack("rabbitmq")] = "rabbitmq"
            if side == .gateway { roots[try stack("gateway")] = "gateway" }
        case .gobatch:
            peer(.gobatchProduct, "product")
            peer(.gobatchOrder, "order")
        case .go:
            peer(.goProduct, "product")
            peer(.goOrder, "order")
        case .nginxLua: peer(.nginxLua, "peer")
        case .nginxLuaFsync:
            peer(.nginxLuaFsync, "peer")
            peer(.redisFsync, "redis")
        case .webdis: peer(.webdis, "peer")
        case .tarantool: peer(.tarantool, "peer")
        case .pgbenchRow, .pgbenchFunction, .pgbenchUnits: break
        }
        return roots
    }

    func cpu(_ side: Side, since before: ProcessTimes) throws -> [String: Double] { cpu(try roots(side), since: before) }

    func cpu(_ roots: [Int: String], since before: ProcessTimes) -> [String: Double] {
        let shares = ProcessTimes.between(before, .now(), roots: roots, ticksPerSecond: ticksPerSecond)
        var cpu = shares.byGroup.filter { Group.all.contains($0.key) }
        cpu[Group.other] = shares.other
        return cpu
    }

    // MARK: A load

    /// One run, as it is asked for.
    struct Load: Sendable {
        var work: Work
        var side: Side
        var request: ClosedLoop.Request
        var url: String
        var expectation: Expectation
        var pause = Duration.zero
    }

    /// How long and by how many.
    struct Turn: Sendable {
        var clients: Int
        var round: Int
        var duration: Duration
        /// A number that no run had before: keys behind it are new.
        var firstKey: UInt64
    }

    /// Loads a server. The processor time is read when `settle` has returned, because a server may still work on a request that it has answered.
    func drive(
        _ load: Load,
        _ turn: Turn,
        settle: @Sendable () async throws -> Void = {}
    ) async throws -> (sample: Sample, figures: ClosedLoop.Figures) {
        // What the run before wrote is on disk before this one begins.
        try await checkpoint()
        let endpoint = try HTTPEndpoint(load.url)
        let before = ProcessTimes.now()
        let figures = try await ClosedLoop.run(
            load.request,
            at: endpoint,
            connections: turn.clients,
            for: turn.duration,
            pause: load.pause,
            on: loadLoop
        )
        try await settle()
        let used = try cpu(load.side, since: before)
        if let problem = load.expectation.problem(figures) {
            throw Failure(description: "\(load.work.rawValue), \(load.side.rawValue), c=\(turn.clients): \(problem)")
        }
        let sample = Sample(
            work: load.work,
            side: load.side,
            clients: turn.clients,
            round: turn.round,
            requests: figures.inTime,
            seconds: figures.seconds,
            p50: figures.latencies.milliseconds(at: 50),
            p99: figures.latencies.milliseconds(at: 99),
            cpu: used,
            worked: figures.answers
        )
        return (sample, figures)
    }

    func checkpoint() async throws {
        _ = try await peers.database.query("CHECKPOINT", [])
    }

    /// Runs pgbench with one of its scripts.
    func pgbench(
        _ script: String,
        clients: Int,
        _ turn: Turn,
        environment: [String: String],
        variables: [String: Int64] = [:]
    ) async throws -> PgbenchReport {
        let seconds = max(1, Int(turn.duration.inSeconds.rounded()))
        let more = variables.sorted { $0.key < $1.key }.map { " -D \($0.key)=\($0.value)" }.joined()
        let text = try await StackScript.shell(
            "exec '\(peers.postgresPrograms)/pgbench' -n -M prepared -f '\(files)/\(script)' -c \(clients) -j 2 -T \(seconds)\(more)",
            environment: environment,
            bound: turn.duration + .seconds(60)
        )
        guard let report = PgbenchReport(text), report.failed == 0 else {
            throw Failure(description: "pgbench \(script): \(text.suffix(600))")
        }
        return report
    }

    /// Runs pgbench, which is its own load generator.
    func pgbench(
        _ script: String,
        _ work: Work,
        _ side: Side,
        clients: Int,
        _ turn: Turn,
        environment: [String: String],
        variables: [String: Int64] = [:],
        each: Int = 1
    ) async throws -> (sample: Sample, report: PgbenchReport) {
        try await checkpoint()
        let before = ProcessTimes.now()
        let report = try await pgbench(script, clients: clients, turn, environment: environment, variables: variables)
        let requests = report.transactions * each
        let sample = Sample(
            work: work,
            side: side,
            clients: clients,
            round: turn.round,
            requests: requests,
            seconds: Double(report.transactions) / report.perSecond,
            p50: report.averageLatency,
            p99: 0,
            cpu: try cpu(side, since: before),
            worked: requests
        )
        return (sample, report)
    }

    // MARK: The project's servers

    func url(_ name: String, _ path: String = "") throws -> String {
        guard let port = environment[name] else { throw Failure(description: "\(name) is not set: scripts/stack env prints it") }
        return "http://127.0.0.1:\(port)\(path)"
    }

    /// Makes a product; every run has one of its own, so that its books are the run's.
    func makeProduct(
        _ stock: Int64,
        strategy: String = "REDIS_FIRST",
        named name: String = "compared",
        through caller: HTTPCaller? = nil
    ) async throws -> Int64 {
        struct Made: Decodable { var id: Int64 }
        let body = "{\"name\":\"\(name)\",\"price\":1,\"stock\":\(stock),\"stockStrategy\":\"\(strategy)\"}"
        let answer = try await (caller ?? product).call(.POST, "/products", json: body)
        guard let made = try? JSONDecoder().decode(Made.self, from: Data(answer.body.readableBytesView)) else {
            throw Failure(description: "the product server makes no product: \(answer.status) \(String(buffer: answer.body))")
        }
        return made.id
    }

    /// A product of ten units with none left, that has refused a buyer already.
    func makeSoldOutProduct(_ turn: Turn) async throws -> Int64 {
        let made = try await makeProduct(10)
        for (key, quantity, status) in [(turn.firstKey, 10, 200), (turn.firstKey + 1, 1, 400)] {
            let answer = try await product.call(
                .PATCH,
                "/products/\(made)/stock/decrease-by-order",
                json: "{\"orderId\":\(key),\"quantity\":\(quantity)}",
                headers: [("Idempotency-Key", "DEC-\(key)")]
            )
            guard answer.status == status else {
                throw Failure(description: "a product could not be sold out: \(answer.status) \(String(buffer: answer.body))")
            }
        }
        return made
    }

    /// Waits until Redis and the ledger agree on the product, and judges its books.
    /// - Parameters:
    ///   - sold: units that must have been sold, by the ledger.
    ///   - orders: orders that must be CONFIRMED, each of one unit; nil where none were placed.
    ///   - failed: FAILED orders that may be there.
    func check(_ product: Int64, sold: Int, orders: Int? = nil, failed: ClosedRange<Int> = 0...0) async throws {
        _ = try await Audit.settle(books, product: product, bound: .seconds(60), interval: .milliseconds(100))
        let audit: Audit
        if orders != nil {
            audit = try await Audit.run(books, product: product, load: nil)
        } else {
            guard let row = try await books.product(product) else { throw Failure(description: "there is no product \(product)") }
            audit = Audit(
                Audit.Input(
                    product: row,
                    ledger: try await books.ledgerTotals(of: product),
                    orders: OrderTotals(confirmedUnits: 0, confirmed: 0, pending: 0),
                    redis: await books.redisStock(of: product),
                    matching: OrderMatching()
                )
            )
        }
        guard audit.passes else {
            throw Failure(description: "product \(product): \(audit.findings.joined(separator: "; ")): \(audit.line)")
        }
        let ledger = try await books.ledgerTotals(of: product)
        guard ledger.sold - ledger.returned == Int64(sold) else {
            throw Failure(
                description:
                    "product \(product): \(sold) decreases were answered with success, the ledger has \(ledger.sold) less \(ledger.returned)"
            )
        }
        let totals = try await books.orderTotals(of: product)
        guard totals.confirmed == Int64(orders ?? 0), failed.contains(Int(totals.failed)), totals.cancelled == 0 else {
            throw Failure(
                description: "product \(product): \(orders ?? 0) orders were answered with success, \(totals.confirmed) are CONFIRMED, "
                    + "\(totals.failed) FAILED, \(totals.cancelled) CANCELLED"
            )
        }
    }

    /// Waits until the relays have sent everything.
    func untilRelayed() async throws {
        let deadline = ContinuousClock.now + .seconds(60)
        while try await books.hasWaitingMessages() {
            guard ContinuousClock.now < deadline else { throw Failure(description: "messages wait for the broker after a minute") }
            try await Task.sleep(for: .milliseconds(50))
        }
    }

    func orderMetrics() async throws -> MetricsText {
        let answer = try await orderAdmin.call(.GET, "/metrics")
        return MetricsText(String(buffer: answer.body))
    }

    /// Events that were not written because too many waited: orders without them are cheaper than those that are compared.
    func droppedEvents() async throws -> Double { try await orderMetrics().sum("stockgate_order_events_dropped_total") }

    /// Holds the breaker in front of Redis open, or lets it close.
    func setBreaker(_ update: String, until state: String) async throws {
        let path = "/admin/circuitbreakers/redisStock"
        _ = try await productAdmin.call(.POST, path, json: "{\"updateState\":\"\(update)\"}")
        try await untilBreaker(state)
    }

    /// Waits until the breaker in front of Redis is in this state.
    func untilBreaker(_ state: String) async throws {
        let deadline = ContinuousClock.now + .seconds(60)
        while true {
            let answer = try await productAdmin.call(.GET, "/admin/circuitbreakers")
            let seen = BreakerHistory.state(json: Data(answer.body.readableBytesView))
            if seen == state { return }
            guard ContinuousClock.now < deadline else { throw Failure(description: "the breaker is \(seen ?? "unknown"), not \(state)") }
            try await Task.sleep(for: .milliseconds(50))
        }
    }

    // MARK: The peers' books

    /// Waits until a peer's own counter has gone down by what was answered: nobody is compared with a server that gives wrong answers.
    func checkPeer(_ side: Side, answered: Int, left: @Sendable () async throws -> Int64) async throws {
        let deadline = ContinuousClock.now + .seconds(20)
        var gone = Self.plenty - (try await left())
        while gone != Int64(answered), ContinuousClock.now < deadline {
            try await Task.sleep(for: .milliseconds(100))
            gone = Self.plenty - (try await left())
        }
        guard gone == Int64(answered) else {
            throw Failure(description: "\(side.rawValue): \(answered) requests were answered with success, \(gone) units are gone")
        }
    }

    func peerStock(_ schema: String) async throws -> Int64 {
        // The name is one of two of ours, never from outside.
        try await peers.database.query("SELECT stock FROM \(schema).products WHERE id = 1", []).one().decode(0)
    }

    /// Calls a peer once.
    func ask(_ peer: PeerStand.Name, _ path: String) async throws -> String {
        let caller = try await HTTPCaller.make(
            endpoint: try peers.endpoint(peer),
            eventLoop: MultiThreadedEventLoopGroup.singleton.next(),
            timeout: .seconds(10)
        )
        defer { caller.close() }
        let answer = try await caller.call(.GET, path)
        guard answer.status == 200 else { throw Failure(description: "\(peer.rawValue): \(path): \(answer.status)") }
        return String(buffer: answer.body).trimmingCharacters(in: .whitespacesAndNewlines)
    }

    func resetGo(_ peer: PeerStand.Name, _ stock: Int64) async throws {
        let answer = try await ask(peer, "/admin/reset?stock=\(stock)")
        guard answer == "<nil>" else { throw Failure(description: "\(peer.rawValue): reset: \(answer)") }
    }
}
