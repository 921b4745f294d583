// Durable decreases over HTTP with the stores as shops have them, in one run: a synchronous standby, TLS, Redis Cluster, cells.
//
// Each measurement has servers of its own, made for it; the variants come round in turn. Prints a table of medians and their ratios to the plain pair of stores.
// Exits 1 when the ledgers do not hold what was answered. Bounds: ROUNDS (3) times the number of variants, each SECONDS_EACH (4) and the start of its servers.

import CompareKit
import FlashSaleKit
import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix
import PostgresClient
import PrivateServers

/// Stores with a product server each, and what is different about them.
enum Variant: String, CaseIterable {
    case plain = "one Redis, one PostgreSQL"
    case standby = "a synchronous standby"
    case tls = "TLS to Redis and PostgreSQL"
    case oneMaster = "Redis Cluster of 1 master"
    case threeMasters = "Redis Cluster of 3 masters"
    case twoCells = "2 cells"

    var cells: Int { self == .twoCells ? 2 : 1 }
}

/// Why there is no figure.
struct Failure: Error, CustomStringConvertible {
    let description: String
}

/// A product server with its own stores and products.
struct Cell {
    /// All of this is stopped when the cell is let go of.
    private let postgres: [PrivatePostgres]
    private let redis: [PrivateRedis]
    private let certificates: PrivateCertificates?
    private let server: ChildProcess
    private let log: String
    let address: String
    let products: [Int64]
    /// What each product had at first.
    static let stock: Int64 = 1_000_000_000

    /// The group that the time of each process belongs to.
    var roots: [Int: String] {
        var roots = [Int(server.pid): "product server"]
        for one in postgres { if let pid = one.pid { roots[Int(pid)] = "PostgreSQL" } }
        for one in redis { if let pid = one.pid { roots[Int(pid)] = "Redis" } }
        return roots
    }

    static func start(_ variant: Variant, binaries: String, products count: Int) async throws -> Cell {
        let certificates = variant == .tls ? try PrivateCertificates() : nil
        let end = try certificates?.sign()
        let primary = try PrivatePostgres.start(
            fsync: true,
            settings: [
                "max_wal_size = 2GB", "shared_buffers = 256MB", "synchronous_standby_names = '\(variant == .standby ? "second" : "")'",
            ],
            tls: end
        )
        var postgres = [primary]
        // It follows before the first commit: none is taken by a server that waits for nobody.
        if variant == .standby { postgres.append(try PrivatePostgres.startStandby(of: primary, name: "second")) }
        var database = primary.url
        if let certificates { database += "?sslmode=verify-full&sslrootcert=\(certificates.authority)" }

        var redis: [PrivateRedis] = []
        let address: String
        switch variant {
        case .oneMaster, .threeMasters:
            let cluster = try await PrivateCluster.start(masters: variant == .oneMaster ? 1 : 3, hasReplicas: false)
            redis = cluster.nodes
            address = cluster.url
        case .plain, .standby, .tls, .twoCells:
            let port = certificates.flatMap { certificates in end.map { PrivateCertificates.Port($0, authority: certificates.authority) } }
            let one = try PrivateRedis.start(options: ["--save", ""], tls: port)
            redis = [one]
            address =
                if let certificates, let tls = one.tlsPort {
                    "rediss://localhost:\(tls)?sslrootcert=\(certificates.authority)"
                } else {
                    one.url
                }
        }

        let (port, adminPort) = (try LoopbackPort.free(), try LoopbackPort.free())
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("stores-\(UUID().uuidString.prefix(8))").path
        let server = try await ServerStart(name: "product", folder: "product", port: port, adminPort: adminPort).start(
            ["STACK_DIR": folder, "REDIS_URL": address, "PRODUCT_DATABASE_URL": database, "GATED_REFRESH": "1s", "LOG_LEVEL": "warning"],
            without: [],
            binaries: binaries
        )
        do {
            let made = try await make(count, at: port, admin: adminPort)
            return Cell(
                postgres: postgres,
                redis: redis,
                certificates: certificates,
                server: server,
                log: folder,
                address: "http://127.0.0.1:\(port)",
                products: made
            )
        } catch {
            let lines = server.lastLines
            await server.end()
            throw Failure(description: "\(variant.rawValue): \(error); the product server's last lines: \(lines)")
        }
    }

    /// Makes products by the server's own route, and waits until each is sold through Redis.
    private static func make(_ count: Int, at port: Int, admin: Int) async throws -> [Int64] {
        struct Made: Decodable { var id: Int64 }
        func caller(_ port: Int) async throws -> HTTPCaller {
            try await HTTPCaller.make(
                endpoint: try HTTPEndpoint("http://127.0.0.1:\(port)"),
                eventLoop: MultiThreadedEventLoopGroup.singleton.next(),
                timeout: .seconds(30)
            )
        }
        let shop = try await caller(port)
        defer { shop.close() }
        var made: [Int64] = []
        for _ in 0..<count {
            let body = "{\"name\":\"stores\",\"price\":1,\"stock\":\(stock),\"stockStrategy\":\"REDIS_FIRST\"}"
            let answer = try await shop.call(.POST, "/products", json: body)
            made.append(try JSONDecoder().decode(Made.self, from: Data(answer.body.readableBytesView)).id)
        }
        let watch = try await caller(admin)
        defer { watch.close() }
        let deadline = ContinuousClock.now + .seconds(60)
        while true {
            let metrics = MetricsText(String(buffer: try await watch.call(.GET, "/metrics").body))
            let (direct, gated) = (metrics.sum("stockgate_direct_products"), metrics.sum("stockgate_gated_products"))
            if direct == 0, gated == Double(count) { return made }
            guard ContinuousClock.now < deadline else {
                throw Failure(
                    description: "after a minute \(Int(gated)) of \(count) products are known, \(Int(direct)) of them sold without Redis"
                )
            }
            try await Task.sleep(for: .milliseconds(50))
        }
    }

    /// Units that are gone from the stock, and units that the ledger's rows say were sold.
    func books() async throws -> (gone: Int64, sold: Int64) {
        guard let url = postgres.first?.url else { throw Failure(description: "no PostgreSQL") }
        let connection = try PostgresConnection(configuration: try PostgresConfiguration.patient(url), name: "stores")
        do {
            let row = try await connection.query(
                "select (select coalesce(sum(initial_stock - stock), 0) from product_stock)::bigint, (select coalesce(sum(quantity), 0) from stock_ledger)::bigint"
            ).one()
            let books = (try row.decode(0, as: Int64.self), try row.decode(1, as: Int64.self))
            await connection.close()
            return books
        } catch {
            await connection.close()
            throw error
        }
    }

    func stop() async {
        await server.end()
        for one in redis { one.kill() }
        for one in postgres.reversed() { one.stop() }
        try? FileManager.default.removeItem(atPath: log)
    }
}

/// One measurement.
struct Figure {
    let rate: Double
    let p99: Double
    /// Microseconds a decrease, by group.
    let cost: [String: Double]
    var allCost: Double { cost.values.reduce(0, +) }
}

@main
enum StoresBenchmark {
    private static let products = 1_000
    private static let connections = 128

    static func main() async throws {
        let environment = ProcessInfo.processInfo.environment
        let rounds = Int(environment["ROUNDS"] ?? "") ?? 3
        let seconds = Int(environment["SECONDS_EACH"] ?? "") ?? 4
        let beside = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent().path
        let binaries = environment["STOCKGATE_BIN_DIR"] ?? beside
        var figures: [Variant: [Figure]] = [:]
        for round in 1...max(1, rounds) {
            for variant in Variant.allCases {
                let figure = try await measure(variant, binaries: binaries, seconds: seconds)
                figures[variant, default: []].append(figure)
                print(
                    String(
                        format: "round %d of %d: %7.0f/s, %5.1f us, %@",
                        round,
                        rounds,
                        figure.rate,
                        figure.allCost,
                        variant.rawValue as NSString
                    )
                )
            }
        }
        func median(_ variant: Variant, _ value: (Figure) -> Double) -> Double { (figures[variant] ?? []).map(value).median ?? 0 }
        print(
            "\nDurable decreases over HTTP: \(products.formatted()) products, drawn evenly, \(connections) connections, fsync on; medians of \(rounds) rounds of \(seconds) s."
        )
        print("CPU: microseconds a decrease, of all processes but the load generator.\n")
        print("| stores | decreases a second | p99, ms | CPU, µs | product server | Redis | PostgreSQL | CPU beside the first line |")
        print("|---|---:|---:|---:|---:|---:|---:|---:|")
        for variant in Variant.allCases {
            let parts = ["product server", "Redis", "PostgreSQL"].map { part in
                String(format: "%.1f", median(variant) { $0.cost[part] ?? 0 })
            }
            print(
                String(
                    format: "| %@ | %.0f | %.1f | %.1f | %@ | %.2f x |",
                    variant.rawValue as NSString,
                    median(variant, \.rate),
                    median(variant, \.p99),
                    median(variant, \.allCost),
                    parts.joined(separator: " | ") as NSString,
                    median(variant, \.allCost) / max(median(.plain, \.allCost), 0.001)
                )
            )
        }
    }

    private static func measure(_ variant: Variant, binaries: String, seconds: Int) async throws -> Figure {
        var cells: [Cell] = []
        func end() async { for cell in cells { await cell.stop() } }
        do {
            for _ in 0..<variant.cells {
                cells.append(try await Cell.start(variant, binaries: binaries, products: products / variant.cells))
            }
            // What comes first finds connections and statements that are yet to be made.
            let warm = try await drive(cells, for: .seconds(1), after: 1_000_000)
            let before = ProcessTimes.now()
            let load = try await drive(cells, for: .seconds(seconds), after: 1_000_000_000)
            let after = ProcessTimes.now()
            let roots = cells.reduce(into: [Int: String]()) { roots, cell in roots.merge(cell.roots) { first, _ in first } }
            let used = ProcessTimes.between(before, after, roots: roots, ticksPerSecond: ProcessTimes.ticksPerSecond)
            for (index, cell) in cells.enumerated() {
                let answered = Int64(warm[index].answers + load[index].answers)
                let books = try await cell.books()
                for figures in [warm[index], load[index]] where figures.broken > 0 || figures.answered.keys.contains(where: { $0 != 200 }) {
                    throw Failure(
                        description: "\(figures.broken) without an answer (\(figures.firstFailure ?? "-")), statuses \(figures.answered)"
                    )
                }
                guard books == (answered, answered) else {
                    throw Failure(
                        description: "\(answered) decreases were answered, \(books.gone) units are gone, the ledger says \(books.sold)"
                    )
                }
            }
            await end()
            let answers = Double(load.map(\.answers).reduce(0, +))
            return Figure(
                rate: load.map(\.rate).reduce(0, +),
                p99: load.map { $0.latencies.milliseconds(at: 99) }.max() ?? 0,
                cost: used.byGroup.mapValues { $0 / max(answers, 1) }
            )
        } catch {
            await end()
            throw Failure(description: "\(variant.rawValue): \(error)")
        }
    }

    /// A closed loop for each cell, the connections dealt out evenly.
    private static func drive(_ cells: [Cell], for duration: Duration, after number: UInt64) async throws -> [ClosedLoop.Figures] {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        return try await withThrowingTaskGroup(of: (Int, ClosedLoop.Figures).self) { group in
            for (index, cell) in cells.enumerated() {
                let request = ClosedLoop.Request(
                    "PATCH",
                    paths: cell.products.map { "/products/\($0)/stock/decrease-by-order" },
                    spread: .even,
                    .numbered(before: "{\"orderId\":", after: ",\"quantity\":1}", keyPrefix: "DEC-"),
                    after: number
                )
                let endpoint = try HTTPEndpoint(cell.address)
                group.addTask {
                    (
                        index,
                        try await ClosedLoop.run(request, at: endpoint, connections: connections / cells.count, for: duration, on: loop)
                    )
                }
            }
            return try await group.reduce(into: []) { $0.append($1) }.sorted { $0.0 < $1.0 }.map(\.1)
        }
    }
}
