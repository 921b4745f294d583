import FlashSaleKit
import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix
import PostgresClient

/// Measures what a request costs with 1, 100, 10,000 and 100,000 gated products, and with 1, 2 and 4 servers of each kind on the same processors.
///
/// This comparison runs after all others: its products stay, and it stops the stack's own order server.
/// Bounds: the numbers below, each `rounds` times `duration` for each spread; making the products and waiting for servers have deadlines.
struct GrowthComparison {
    let bench: Bench
    let plan: PeerComparison.Plan
    let stack: StackScript
    /// Where `product-server` and `order-server` are.
    let binaries: String
    /// A number that no run had before.
    let firstKey: UInt64
    let tell: @Sendable (String) -> Void

    private static let products = [1, 100, 10_000, 100_000]
    private static let instances = [1, 2, 4]
    private static let clients = 128
    /// Connections that make products.
    private static let makers = 32
    /// The name by which the products are found.
    private static let name = "growth"

    /// - Throws: what went wrong first: a server, a wrong answer, books that do not agree.
    func run() async throws -> GrowthResult {
        var key = firstKey
        func turn(_ round: Int) -> Bench.Turn {
            key += 1_000_000_000
            return Bench.Turn(clients: Self.clients, round: round, duration: round == 0 ? plan.warmUp : plan.duration, firstKey: key)
        }
        tell("growth")
        return GrowthResult(points: try await growProducts(turn) + growInstances(turn))
    }

    private func told(_ point: GrowthResult.Point) -> GrowthResult.Point {
        tell(
            "   \(point.count.grouped) \(point.kind.rawValue), \(point.spread.rawValue): \(point.rate.digits(0))/s, "
                + "cpu \(point.cost.digits(1)) us"
        )
        return point
    }

    // MARK: Products

    private func growProducts(_ turn: (Int) -> Bench.Turn) async throws -> [GrowthResult.Point] {
        guard let url = bench.environment["PRODUCT_DATABASE_URL"] else { throw PlanError("PRODUCT_DATABASE_URL is not set") }
        let database = try PostgresConnection(configuration: try PostgresConfiguration(url: url), name: "compare")
        do {
            let points = try await growProducts(turn, database)
            await database.close()
            return points
        } catch {
            await database.close()
            throw error
        }
    }

    private func growProducts(_ turn: (Int) -> Bench.Turn, _ database: PostgresConnection) async throws -> [GrowthResult.Point] {
        var ids: [Int64] = []
        var sold = 0
        var points: [GrowthResult.Point] = []
        for count in Self.products {
            ids += try await make(count - ids.count)
            try await untilGated()
            for spread in GrowthResult.Spread.allCases where count > 1 || spread == .uniform {
                var point = GrowthResult.Point(kind: .products, count: count, spread: spread, runs: [])
                for round in 0...plan.rounds {
                    let sample = try await decreases(ids, spread, turn(round))
                    sold += sample.worked
                    if round > 0 { point.runs.append(sample) }
                }
                points.append(told(point))
            }
            try await check(database, sold: sold)
        }
        return points
    }

    private func decreases(_ ids: [Int64], _ spread: GrowthResult.Spread, _ turn: Bench.Turn) async throws -> Sample {
        let request = ClosedLoop.Request(
            "PATCH",
            paths: ids.map { "/products/\($0)/stock/decrease-by-order" },
            spread: spread.choice,
            .numbered(before: "{\"orderId\":", after: ",\"quantity\":1}", keyPrefix: "DEC-"),
            after: turn.firstKey
        )
        let load = Bench.Load(
            work: .durable,
            side: .stockGate,
            request: request,
            url: try bench.url("PRODUCT_PORT"),
            expectation: .every(200)
        )
        return try await bench.drive(load, turn).sample
    }

    /// Makes products by the server's own route, over several connections at a time.
    private func make(_ count: Int) async throws -> [Int64] {
        guard count > 0 else { return [] }
        let makers = min(Self.makers, count)
        let endpoint = try HTTPEndpoint(try bench.url("PRODUCT_PORT"))
        return try await withThrowingTaskGroup(of: [Int64].self) { group in
            for maker in 0..<makers {
                group.addTask {
                    let caller = try await HTTPCaller.make(
                        endpoint: endpoint,
                        eventLoop: MultiThreadedEventLoopGroup.singleton.next(),
                        timeout: .seconds(30)
                    )
                    defer { caller.close() }
                    var made: [Int64] = []
                    for _ in 0..<(count / makers + (maker < count % makers ? 1 : 0)) {
                        made.append(try await bench.makeProduct(Bench.plenty, named: Self.name, through: caller))
                    }
                    return made
                }
            }
            return try await group.reduce(into: []) { $0 += $1 }
        }
    }

    /// Waits until each product is sold through Redis.
    private func untilGated() async throws {
        let deadline = ContinuousClock.now + .seconds(120)
        while true {
            let direct = MetricsText(String(buffer: try await bench.productAdmin.call(.GET, "/metrics").body)).sum(
                "stockgate_direct_products"
            )
            if direct == 0 { return }
            guard ContinuousClock.now < deadline else {
                throw Bench.Failure(
                    description: "growth: \(Int(direct)) products are still sold through the ledger alone after two minutes"
                )
            }
            try await Task.sleep(for: .milliseconds(100))
        }
    }

    /// Checks that as many units are gone from all these products together as decreases were answered with success.
    private func check(_ database: PostgresConnection, sold: Int) async throws {
        let sql =
            "select coalesce(sum($1 - s.stock), 0)::bigint from product_stock s join products p on p.id = s.product_id where p.name = $2"
        let gone = try await database.query(sql, [.int(Bench.plenty), .text(Self.name)]).one().decode(0, as: Int64.self)
        guard gone == Int64(sold) else {
            throw Bench.Failure(description: "growth: \(sold) decreases were answered with success, \(gone) units are gone")
        }
    }

    // MARK: Instances

    private func growInstances(_ turn: (Int) -> Bench.Turn) async throws -> [GrowthResult.Point] {
        // Orders that these servers accept or relay would be work of servers that are not counted.
        await bench.plainOrders.end()
        try await stack.run(["stop", "order", "gateway"])
        var points: [GrowthResult.Point] = []
        for count in Self.instances {
            let stand = try await InstanceStand.start(count, environment: bench.environment, binaries: binaries)
            do {
                var point = GrowthResult.Point(kind: .instances, count: count, spread: .uniform, runs: [])
                for round in 0...plan.rounds {
                    let sample = try await orders(stand, turn(round))
                    if round > 0 { point.runs.append(sample) }
                }
                points.append(told(point))
                await stand.end()
            } catch {
                await stand.end()
                throw error
            }
        }
        return points
    }

    /// Whole orders, the connections dealt out to the order servers.
    private func orders(_ stand: InstanceStand, _ turn: Bench.Turn) async throws -> Sample {
        let product = try await bench.makeProduct(Bench.plenty)
        try await bench.checkpoint()
        let roots = try bench.roots(.stockGate, servers: stand.roots)
        let before = ProcessTimes.now()
        let all = try await withThrowingTaskGroup(of: ClosedLoop.Figures.self) { group in
            for (index, url) in stand.orders.enumerated() {
                let request = ClosedLoop.Request(
                    "POST",
                    "/orders",
                    .constant("{\"productId\":\(product),\"quantity\":1,\"buyerId\":\"u-1\"}", keyPrefix: "compare-"),
                    after: turn.firstKey + UInt64(index) * 10_000_000
                )
                let endpoint = try HTTPEndpoint(url)
                group.addTask {
                    try await ClosedLoop.run(
                        request,
                        at: endpoint,
                        connections: turn.clients / stand.orders.count,
                        for: turn.duration,
                        on: bench.loadLoop
                    )
                }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        try await bench.untilRelayed()
        let used = bench.cpu(roots, since: before)
        for figures in all {
            if let problem = Expectation.every(200).problem(figures) {
                throw Bench.Failure(description: "growth, \(stand.orders.count) instances: \(problem)")
            }
        }
        let answers = all.map(\.answers).reduce(0, +)
        try await bench.check(product, sold: answers, orders: answers)
        return Sample(
            work: .order,
            side: .stockGate,
            clients: turn.clients,
            round: turn.round,
            requests: all.map(\.inTime).reduce(0, +),
            seconds: all.map(\.seconds).max() ?? 0,
            p50: all.map { $0.latencies.milliseconds(at: 50) }.max() ?? 0,
            p99: all.map { $0.latencies.milliseconds(at: 99) }.max() ?? 0,
            cpu: used,
            worked: answers
        )
    }
}
