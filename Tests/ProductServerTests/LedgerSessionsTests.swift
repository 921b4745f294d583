import Eventually
import HTTPTypes
import NIOPosix
import PostgresClient
import ServerKit
import StockGate
import PrivateServers
import StrictJSON
import Synchronization
import Testing

@testable import ProductServer

/// What the product server's sessions at PostgreSQL may do, and what it says of itself.
@Suite(.serialized, .timeLimit(.minutes(10)))
struct LedgerSessionsTests {
    @Test(
        "read-only for a while: not ready, nothing is sold and nothing lost; within 5 s of its end it sells, without a restart",
        arguments: ["REDIS_FIRST", "DB_ONLY"]
    )
    func readOnly(strategy: String) async throws {
        try await ProductServerFixture.with(["ANSWER_WITHIN": "3s"]) { server in
            let id = try await server.addProduct(stock: 10, strategy: strategy)
            var order = 0
            let sell = { () async throws -> ProductServerFixture.Answer in
                order += 1
                return try await server.ask(
                    .patch,
                    "/products/\(id)/stock/decrease-by-order",
                    #"{"orderId":\#(order),"quantity":1}"#,
                    key: "DEC-\(order)"
                )
            }
            #expect(try await sell().status == 200)
            #expect(try await server.ask(.get, "/readyz").status == 200)
            let owner = try PostgresConnection(configuration: try PostgresConfiguration.patient(server.postgres.url))
            let setReadOnly = { (isReadOnly: Bool) in
                try await owner.withSession { session in
                    // This very session must be able to take it back.
                    try session.execute(script: "set default_transaction_read_only = off")
                    try session.execute(script: "alter database postgres set default_transaction_read_only = \(isReadOnly ? "on" : "off")")
                }
            }
            var sold: Int64 = 1
            var slowest = Duration.zero
            // Up to three times: a machine that is busy elsewhere may make one of them late, and a server that is late is so each time.
            for _ in 0..<3 {
                try await setReadOnly(true)
                _ = try await owner.query(
                    "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and backend_type = 'client backend'"
                )
                try await eventually("not ready") { try await server.ask(.get, "/readyz").status == 503 }
                #expect(try await server.ask(.get, "/readyz?verbose").body.contains(#""database":{"state":"DOWN""#))
                for _ in 0..<3 {
                    let refused = try await sell()
                    #expect(refused.status == 503 && refused.headers[.retryAfter] != nil, "\(refused.body)")
                }
                #expect(try await server.ask(.get, "/products/\(id)")["stock"] == .int(10 - sold), "reads go on")
                let change = try await server.ask(.patch, "/products/\(id)", #"{"price":5}"#)
                #expect(change.status == 503 && change.headers[.retryAfter] != nil, "\(change.body)")
                try await setReadOnly(false)
                slowest = .zero
                func timed(_ what: String, _ isTrue: () async throws -> Bool) async throws {
                    let began = ContinuousClock.now
                    try await eventually(what, isTrue)
                    slowest = max(slowest, ContinuousClock.now - began)
                }
                try await timed("sells again") { try await sell().status == 200 }
                try await timed("ready again") { try await server.ask(.get, "/readyz").status == 200 }
                try await timed("changes again") { try await server.ask(.patch, "/products/\(id)", #"{"price":5}"#).status == 200 }
                sold += 1
                #expect(try await server.ask(.get, "/products/\(id)")["stock"] == .int(10 - sold))
                if slowest <= .seconds(5) { break }
            }
            #expect(slowest <= .seconds(5))
        }
    }

    /// Servers with a role that may have so many connections.
    private func withFew(
        _ connections: Int,
        _ body: (StockEngine, _ lanes: Lanes, _ owner: PostgresPool) async throws -> Void
    ) async throws {
        let postgres = try PrivatePostgres.start(fsync: false)
        defer { postgres.stop() }
        let redis = try PrivateRedis.start(options: ["--save", ""])
        defer { redis.stop() }
        let owner = PostgresPool(configuration: try PostgresConfiguration.patient(postgres.url), maximumConnections: 1)
        _ = try await Migrator(configuration: try PostgresConfiguration.patient(postgres.url)).apply(ProductServer.migrations)
        for sql in [
            "create role shop login connection limit \(connections)", "grant all on all tables in schema public to shop",
            "grant all on all sequences in schema public to shop",
            "insert into product_stock (product_id, stock, initial_stock) values (1, 1000, 1000)",
        ] { _ = try await owner.query(sql) }
        let url = postgres.url.replacing("postgres@", with: "shop@")
        var reader = SettingsReader(environment: ["REDIS_URL": redis.url, "PRODUCT_DATABASE_URL": url, "ANSWER_WITHIN": "30s"])
        let settings = try ProductServerConfiguration(from: &reader)
        let lanes = Lanes()
        let engine = try StockEngine(settings.engine, eventLoopGroup: MultiThreadedEventLoopGroup.singleton) { event in
            if case .laneChanged(let lane, let why) = event { lanes.note(lane, why) }
        }
        do {
            try await body(engine, lanes, owner)
        } catch {
            await engine.shutdown()
            await owner.shutdown()
            throw error
        }
        await engine.shutdown()
        await owner.shutdown()
    }

    final class Lanes: Sendable {
        private let lines = Mutex<[String]>([])
        func note(_ lane: String, _ why: String?) { lines.withLock { $0.append(lane + (why == nil ? " works" : " fails")) } }
        var all: [String] { lines.withLock { $0 } }
    }

    private func sell(_ engine: StockEngine, _ orders: Range<Int64>) async -> Int {
        await withTaskGroup(of: Bool.self) { group in
            for order in orders {
                group.addTask {
                    let request = DecreaseRequest(product: ProductID(1), key: "DEC-\(order)", orderID: order, quantity: 1, isRepeat: false)
                    if case .sold = await engine.decrease(request) { return true } else { return false }
                }
            }
            return await group.reduce(into: 0) { $0 += $1 ? 1 : 0 }
        }
    }

    @Test("connections are scarce: the lanes take theirs first, and sell while the pool is short of them")
    func lanesComeFirst() async throws {
        try await withFew(3) { engine, lanes, _ in
            try await eventually("the engine starts") {
                try await engine.start()
                return true
            }
            // Readers that want more connections than are left.
            await withTaskGroup(of: Void.self) { group in
                for _ in 0..<12 { group.addTask { _ = try? await engine.ledger.pool.query("select pg_sleep(0.1)") } }
            }
            #expect(await sell(engine, 0..<50) == 50)
            // A lane may be asked again: on a busy machine its answer may come too late for the first question.
            try await eventually("the lanes work") {
                let (selling, giving) = await engine.ledger.laneTroubles()
                return selling == [nil] && giving == nil
            }
            #expect(lanes.all == [])
        }
    }

    @Test("a lane that cannot connect says so once, takes the place of what is idle, and says when it works again")
    func idleGivesWay() async throws {
        try await withFew(2) { engine, lanes, _ in
            // The pool has all places, idle; the lanes have none.
            try await engine.ledger.pool.withConnection { one in
                try await engine.ledger.pool.withConnection { two in
                    _ = (try await one.query("select 1"), try await two.query("select 1"))
                    #expect(await sell(engine, 0..<5) == 0)
                    #expect(await sell(engine, 5..<10) == 0)
                    let (selling, giving) = await engine.ledger.laneTroubles()
                    #expect(selling.compactMap(\.self).count == 1 && giving != nil)
                    #expect(lanes.all.filter { $0 == "ledger-out-0 fails" }.count == 1, "\(lanes.all)")
                }
            }
            #expect(engine.ledger.pool.snapshot().busy == 0)
            try await eventually("sells") { await sell(engine, 100..<101) == 1 }
            #expect(engine.ledger.pool.snapshot().open == 0, "what was idle has given way")
            #expect(lanes.all.filter { $0.hasPrefix("ledger-out-0") } == ["ledger-out-0 fails", "ledger-out-0 works"])
        }
    }

    @Test(
        "a ledger that answers and takes nothing: the lane is in trouble until it is taken again, which the question for it finds out",
        arguments: [
            ("42501", "revoke insert on stock_ledger from shop", "grant insert on stock_ledger to shop"),
            (
                "42883",
                "do $$ begin execute (select 'alter function ' || oid::regprocedure || ' rename to gone' from pg_proc where proname = 'stock_commit'); end $$",
                "do $$ begin execute (select 'alter function ' || oid::regprocedure || ' rename to stock_commit' from pg_proc where proname = 'gone'); end $$"
            ),
            ("53100", refusing("53100"), "drop trigger no on stock_ledger"),
            ("54000", refusing("54000"), "drop trigger no on stock_ledger"),
        ]
    )
    func takesNothing(state: String, begin: String, end: String) async throws {
        try await withFew(12) { engine, lanes, owner in
            try await eventually("the engine starts") {
                try await engine.start()
                return true
            }
            #expect(await sell(engine, 0..<5) == 5)
            try await owner.withConnection { try await $0.withSession { try $0.execute(script: begin) } }
            var order: Int64 = 5
            try await eventually("in trouble") {
                #expect(await sell(engine, order..<order + 3) == 0)
                order += 3
                return await engine.ledger.laneTroubles().selling.first??.sqlState == state
            }
            for _ in 0..<5 {
                #expect(await sell(engine, order..<order + 3) == 0)
                order += 3
                #expect(await engine.ledger.laneTroubles().selling.first??.sqlState == state)
            }
            #expect(lanes.all == ["ledger-out-0 fails"], "told once")
            try await owner.withConnection { try await $0.withSession { try $0.execute(script: end) } }
            // Nobody buys: a server that is not ready has no buyers.
            try await eventually("well again", within: .seconds(5)) { await engine.ledger.laneTroubles().selling == [nil] }
            #expect(lanes.all == ["ledger-out-0 fails", "ledger-out-0 works"])
            #expect(await sell(engine, order..<order + 5) == 5)
            let sold = try await owner.query("select count(*), (select 1000 - stock from product_stock) from stock_ledger").one()
            #expect(try sold.decode(0, as: Int64.self) == 10 && sold.decode(1, as: Int64.self) == 10)
        }
    }

    /// SQL that has every insert into the ledger fail.
    private static func refusing(_ state: String) -> String {
        """
        create or replace function no() returns trigger language plpgsql as
        $$ begin raise exception 'scripted refusal' using errcode = '\(state)'; end $$;
        create trigger no before insert on stock_ledger for each row execute function no()
        """
    }

    @Test("a frozen database: every route that needs it is 503 with Retry-After, within the time of a sale")
    func frozen() async throws {
        try await ProductServerFixture.with(["ANSWER_WITHIN": "3s"]) { server in
            let hot = try await server.addProduct(stock: 10)
            let cold = try await server.addProduct(stock: 10, strategy: "DB_ONLY")
            let routes: [(HTTPRequest.Method, String, String?, String?, Bool)] = [
                (.get, "/products/\(hot)", nil, nil, false), (.get, "/products", nil, nil, false),
                (.post, "/products", #"{"name":"x","price":1,"stock":1}"#, "key-1", false),
                (.patch, "/products/\(hot)", #"{"price":1}"#, nil, false), (.delete, "/products/\(cold)", nil, nil, false),
                (.patch, "/products/\(hot)/stock/decrease-by-order", #"{"orderId":1,"quantity":1}"#, "DEC-1", false),
                (.patch, "/products/\(cold)/stock/decrease-by-order", #"{"orderId":2,"quantity":1}"#, "DEC-2", false),
                (.patch, "/products/\(hot)/stock/increase-by-order", #"{"orderId":3,"quantity":1}"#, "INC-3", false),
                (.get, "/products/\(hot)/stock/ledger", nil, nil, false),
                (.post, "/admin/products/\(hot)/load-stock-redis", nil, nil, true),
                (.post, "/admin/products/\(hot)/stock-adjustments", #"{"quantity":1}"#, "adjust-1", true),
                (.get, "/admin/audit/products/\(hot)", nil, nil, true),
            ]
            server.postgres.pause()
            for (method, path, body, key, isAdmin) in routes {
                var took = Duration.zero
                // Asked again if it was late: the machine may have been busy elsewhere, and a route that is late is so each time.
                for _ in 0..<3 {
                    let began = ContinuousClock.now
                    let answer = try await server.ask(method, path, body, key: key, admin: isAdmin)
                    took = ContinuousClock.now - began
                    #expect(
                        answer.status == 503 && answer.headers[.retryAfter] != nil,
                        "\(method) \(path): \(answer.status) \(answer.body)"
                    )
                    if took < .seconds(6) { break }
                }
                #expect(took < .seconds(6), "\(method) \(path): \(took)")
            }
            try await eventually("not ready") { try await server.ask(.get, "/readyz").status == 503 }
            server.postgres.resume()
            try await eventually("sells again") {
                try await server.ask(.patch, "/products/\(hot)/stock/decrease-by-order", #"{"orderId":9,"quantity":1}"#, key: "DEC-9")
                    .status == 200
            }
        }
    }
}
