// Group commit beside pgbench, in one run on one PostgreSQL: fsync and synchronous_commit on.
//
// Prints a table of medians of interleaved rounds and their ratios; exits 1 when a sum in the ledger is not what the callers were told.
// Bounds: each round is a closed loop of so many callers for so many seconds.

import CircuitBreaker
import Foundation
import NIOPosix
import PostgresClient
import RedisClient
import StockGate
import PrivateServers
import Synchronization

/// What one round of callers saw.
struct Round {
    var sold = 0
    var seconds = 0.0
    var latencies: [Double] = []

    var rate: Double { Double(sold) / seconds }

    /// Milliseconds that this share of the calls stayed under.
    func percentile(_ share: Double) -> Double {
        let sorted = latencies.sorted()
        guard !sorted.isEmpty else { return 0 }
        return sorted[min(sorted.count - 1, Int(Double(sorted.count) * share))]
    }
}

@main
enum EngineBenchmark {
    static let hotRow = """
        begin;
        select stock from pgbench_stock where id = 1 for update;
        update pgbench_stock set stock = stock - 1 where id = 1;
        insert into pgbench_ledger(product_id, request_id, qty) values (1, gen_random_uuid()::text, 1);
        commit;
        """
    static let sameStatement = """
        select * from stock_commit(array[3::bigint], array['PGB-' || gen_random_uuid()::text], array[1::bigint], array[1::bigint], array[0::bigint],
          array[0::bigint], array[0::bigint]);
        """

    static func main() async throws {
        let rounds = Int(ProcessInfo.processInfo.environment["ROUNDS"] ?? "") ?? 3
        let seconds = Double(ProcessInfo.processInfo.environment["SECONDS_EACH"] ?? "") ?? 4
        let postgres = try PrivatePostgres.start(fsync: true, settings: ["max_wal_size=2GB", "shared_buffers=256MB"])
        defer { postgres.stop() }
        let redis = try PrivateRedis.start(options: ["--save", ""])
        defer { redis.stop() }
        let configuration = try PostgresConfiguration(url: postgres.url)
        _ = try await Migrator(configuration: configuration).apply(
            LedgerMigrations.all.map { Migration(version: $0.version, name: $0.name, sql: $0.sql) }
        )
        let pool = PostgresPool(configuration: configuration, maximumConnections: 2)
        for statement in [
            "create table pgbench_stock(id bigint primary key, stock bigint not null check (stock >= 0))",
            "insert into pgbench_stock select i, 1000000000 from generate_series(1, 1000) i",
            """
            create table pgbench_ledger(id bigint generated always as identity primary key, product_id bigint, request_id text unique, qty int,
              created_at timestamptz default now())
            """,
            """
            insert into product_stock (product_id, stock, initial_stock, is_gated)
            select i, 1000000000, 1000000000, i <> 2 and i <> 3 from generate_series(1, 3) i
            """,
        ] { _ = try await pool.query(statement) }
        let engine = try StockEngine(
            EngineConfiguration(
                ledger: LedgerConfiguration(postgres: configuration),
                redis: try RedisConfiguration(url: redis.url),
                breaker: .default
            ),
            eventLoopGroup: MultiThreadedEventLoopGroup.singleton
        )
        try await engine.start()
        let run = Task { await engine.run() }
        defer { run.cancel() }

        var figures: [String: [Double]] = [:]
        var p99: [String: [Double]] = [:]
        var told: [Int64: Int] = [:]
        func note(_ name: String, _ round: Round, product: Int64) {
            figures[name, default: []].append(round.rate)
            p99[name, default: []].append(round.percentile(0.99))
            told[product, default: 0] += round.sold
        }
        for number in 1...rounds {
            print("round \(number) of \(rounds), \(Int(seconds)) s each …")
            figures["pgbench hot row, 32 clients", default: []].append(try pgbench(hotRow, clients: 32, seconds: seconds, postgres))
            note("engine, ledger alone, 256 callers", try await callers(256, engine, product: 2, seconds: seconds), product: 2)
            note("engine, through Redis, 256 callers", try await callers(256, engine, product: 1, seconds: seconds), product: 1)
            let single = try pgbench(sameStatement, clients: 1, seconds: seconds, postgres)
            figures["pgbench, stock_commit, 1 client", default: []].append(single)
            note("engine, ledger alone, 1 caller", try await callers(1, engine, product: 2, seconds: seconds), product: 2)
        }

        var isSound = true
        for (product, sold) in told {
            let row = try await pool.query(
                """
                select 1000000000 - stock, (select coalesce(sum(quantity), 0)::bigint from stock_ledger where product_id = $1) from product_stock
                where product_id = $1
                """,
                [.int(product)]
            ).one()
            let (gone, written) = (try row.decode(0, as: Int64.self), try row.decode(1, as: Int64.self))
            if gone != Int64(sold) || written != Int64(sold) {
                isSound = false
                print("product \(product): told \(sold), stock fell by \(gone), ledger says \(written)")
            }
        }

        let recovery = try await resync(engine, pool, products: 1000)
        let memory = try await memoryOfProducts(100_000)

        func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }
        print("\nmedians of \(rounds) rounds, \(loadLine())")
        for (name, values) in figures.sorted(by: { $0.key < $1.key }) {
            let tail = p99[name].map { String(format: "   p99 %6.2f ms", median($0)) } ?? ""
            print("\(name.padding(toLength: 38, withPad: " ", startingAt: 0)) \(String(format: "%9.0f/s", median(values)))\(tail)")
        }
        func ratio(_ name: String, _ over: String, goal: Double) {
            let ratio = median(figures[name] ?? [0]) / max(median(figures[over] ?? [1]), 1)
            let verdict = ratio >= goal ? "reached" : "NOT reached"
            print(String(format: "%5.2f x  (goal %.1f x, %@)  ", ratio, goal, verdict as NSString) + "\(name) / \(over)")
        }
        ratio("engine, ledger alone, 256 callers", "pgbench hot row, 32 clients", goal: 40)
        ratio("engine, through Redis, 256 callers", "pgbench hot row, 32 clients", goal: 40)
        ratio("engine, ledger alone, 1 caller", "pgbench, stock_commit, 1 client", goal: 0.8)
        print(String(format: "%.0f ms for 1,000 gated products resynced (goal 250 ms)", recovery * 1000))
        print(String(format: "%.0f bytes a gated product in the process, measured with 100,000", memory))
        let batches = engine.ledger.decreaseLaneSnapshots().first
        print("batches \(batches?.batches ?? 0), members \(batches?.members ?? 0), largest \(batches?.largestBatch ?? 0)")
        let metrics = engine.metrics
        print(
            "reserves \(metrics.reserves.count), direct \(metrics.direct.count), applies \(metrics.applies.count), "
                + "lost applies \(metrics.lostApplies.count), resyncs \(metrics.resyncs.count), "
                + "Redis timeouts \(engine.redisSnapshot().timeouts), connections \(engine.redisSnapshot().connects)"
        )
        run.cancel()
        await engine.shutdown()
        await pool.shutdown()
        print(isSound ? "the ledger holds what the callers were told" : "THE LEDGER DIFFERS FROM WHAT THE CALLERS WERE TOLD")
        if !isSound { exit(1) }
    }

    /// A closed loop: each caller decreases by one again and again.
    static func callers(_ count: Int, _ engine: StockEngine, product: Int64, seconds: Double) async throws -> Round {
        let run = UInt64.random(in: .min ... .max)
        let began = ContinuousClock.now
        let end = began + .seconds(seconds)
        var all = await withTaskGroup(of: Round.self) { group in
            for caller in 0..<count {
                group.addTask {
                    var round = Round()
                    var number = 0
                    while ContinuousClock.now < end {
                        number += 1
                        let key = "DEC-\(run)-\(caller)-\(number)"
                        let sent = ContinuousClock.now
                        let answer = await engine.decrease(
                            DecreaseRequest(product: ProductID(product), key: key, orderID: Int64(number), quantity: 1, isRepeat: false)
                        )
                        if case .sold = answer { round.sold += 1 }
                        round.latencies.append((ContinuousClock.now - sent) / .milliseconds(1))
                    }
                    return round
                }
            }
            var all = Round()
            for await round in group {
                all.sold += round.sold
                all.latencies += round.latencies
            }
            return all
        }
        all.seconds = (ContinuousClock.now - began) / .seconds(1)
        return all
    }

    /// Transactions a second.
    static func pgbench(_ script: String, clients: Int, seconds: Double, _ postgres: PrivatePostgres) throws -> Double {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("stockgate-\(UUID().uuidString).sql")
        try script.write(to: file, atomically: true, encoding: .utf8)
        defer { try? FileManager.default.removeItem(at: file) }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = [
            "pgbench", "-n", "-M", "prepared", "-f", file.path, "-c", "\(clients)", "-j", "\(min(2, clients))", "-T", "\(Int(seconds))",
            postgres.url,
        ]
        let output = Pipe()
        process.standardOutput = output
        process.standardError = FileHandle.nullDevice
        try process.runWithAllSignals()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        for line in text.split(separator: "\n") where line.hasPrefix("tps = ") {
            if let rate = line.dropFirst(6).split(separator: " ").first.flatMap({ Double($0) }) { return rate }
        }
        throw PrivatePostgres.Failure(description: "pgbench gave no figure: is it installed (postgresql-contrib)? It said: \(text)")
    }

    /// Seconds from asking to exact for so many gated products, through the breaker's recovery.
    static func resync(_ engine: StockEngine, _ pool: PostgresPool, products: Int) async throws -> Double {
        _ = try await pool.query(
            "insert into product_stock (product_id, stock, initial_stock, is_gated) select 1000 + i, 10, 10, true from generate_series(1, $1::bigint) i",
            [.int(Int64(products))]
        )
        for id in 1...products { engine.setGated(ProductID(1000 + Int64(id)), true) }
        let breakers = engine.breakers
        for breaker in breakers { breaker.transition(to: .forceOpen) }
        let began = ContinuousClock.now
        for breaker in breakers { breaker.transition(to: .close) }
        while breakers.contains(where: { $0.state != .closed }) {
            if ContinuousClock.now - began > .seconds(20) { throw PrivatePostgres.Failure(description: "the breaker did not close") }
            try await Task.sleep(for: .milliseconds(1))
        }
        return (ContinuousClock.now - began) / .seconds(1)
    }

    /// Bytes that the process grows by for each gated product it keeps.
    static func memoryOfProducts(_ count: Int) async throws -> Double {
        let engine = try StockEngine(
            EngineConfiguration(
                ledger: LedgerConfiguration(postgres: try PostgresConfiguration(url: "postgresql://127.0.0.1:1/none")),
                redis: RedisConfiguration(),
                breaker: .default
            ),
            eventLoopGroup: MultiThreadedEventLoopGroup.singleton
        )
        let before = residentBytes()
        for id in 1...count { engine.setGated(ProductID(Int64(id)), true) }
        let after = residentBytes()
        await engine.shutdown()
        return Double(after - before) / Double(count)
    }

    static func residentBytes() -> Int {
        let text = (try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8)) ?? ""
        let pages = text.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
        return pages * 4096
    }

    static func loadLine() -> String {
        let load = (try? String(contentsOfFile: "/proc/loadavg", encoding: .utf8))?.split(separator: " ").first ?? "?"
        return "\(ProcessInfo.processInfo.activeProcessorCount) cores, load average \(load)"
    }
}
