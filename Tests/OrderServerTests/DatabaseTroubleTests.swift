import Eventually
import NIOHTTP1
import PostgresClient
import ServerKit
import PrivateServers
import StrictJSON
import Testing

@testable import MessageBroker
@testable import OrderServer

/// The order server over a database that may only be read, is frozen, or is away.
@Suite("Trouble with the order database", .serialized, .timeLimit(.minutes(3)))
struct DatabaseTroubleTests {
    /// Sessions begin read-only, or no longer, and those that are open end.
    private func setReadOnly(_ bed: TestBed, _ isReadOnly: Bool, endsSessions: Bool) async throws {
        let name = String(bed.databaseURL.split(separator: "/").last ?? "")
        let owner = try PostgresConnection(
            configuration: try PostgresConfiguration.patient(String(bed.databaseURL.dropLast(name.count)) + "postgres")
        )
        _ = try await owner.query("alter database \(name) set default_transaction_read_only = \(isReadOnly ? "on" : "off")")
        if endsSessions {
            _ = try await owner.query("select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", [.text(name)])
        }
    }

    /// Waits as `eventually` does. What the machine is late with is not the server's time: the bound grows by it.
    private func inTime(_ what: String, within bound: Duration = .seconds(60), _ isTrue: () async throws -> Bool) async throws {
        try await Lateness.watched { late in
            let began = ContinuousClock.now
            var left: Duration { bound + late.sum - (.now - began) }
            while true {
                do {
                    return try await eventually(what, within: left, every: .milliseconds(10), isTrue)
                } catch is NotInTime where left > .zero {
                    // The machine was late meanwhile.
                }
            }
        }
    }

    @Test("read-only for a while: not ready, 503 with Retry-After; within 5 s of its end it sells, without a restart")
    func readOnly() async throws {
        try await TestBed.run(stock: [1: 100]) { bed in
            #expect(try await bed.place(1)["status"] == "CONFIRMED")
            try await bed.waitUntilReady()
            try await setReadOnly(bed, true, endsSessions: true)
            try await inTime("not ready") { try await bed.send(.GET, "/readyz").status == 503 }
            let health = try await bed.send(.GET, "/readyz?verbose")
            #expect(health["details"]["dependencies"]?["database"]?["state"] == "DOWN", "\(health)")
            for path in ["/orders", "/v1/orders"] {
                let refused = try await bed.place(1, path: path)
                #expect(refused.status == 503 && refused.headers.contains(name: "retry-after"), "\(refused)")
            }
            // Reads need no more than a database that may be read.
            #expect(try await bed.send(.GET, "/orders?page=0").status == 200)
            try await setReadOnly(bed, false, endsSessions: false)
            try await inTime("sells again", within: .seconds(5)) { try await bed.place(1)["status"] == "CONFIRMED" }
            try await inTime("ready again", within: .seconds(5)) { try await bed.send(.GET, "/readyz").status == 200 }
        }
    }

    @Test(
        "a database that answers and takes no order: not ready, 503 with Retry-After; ready within 5 s of its end though nobody orders",
        arguments: ["42501", "53100"]
    )
    func takesNoOrder(state: String) async throws {
        try await TestBed.run(stock: [1: 100]) { bed in
            #expect(try await bed.place(1)["status"] == "CONFIRMED")
            try await bed.waitUntilReady()
            for sql in [
                """
                create function no() returns trigger language plpgsql as
                $$ begin raise exception 'scripted refusal' using errcode = '\(state)'; end $$
                """,
                "create trigger no before insert on orders for each row execute function no()",
            ] { _ = try await bed.pool.query(sql) }
            for _ in 0..<3 {
                let refused = try await bed.place(1)
                #expect(refused.status == 503 && refused.headers.contains(name: "retry-after"), "\(refused)")
            }
            try await inTime("not ready") { try await bed.send(.GET, "/readyz").status == 503 }
            let database = try await bed.send(.GET, "/readyz?verbose")["details"]["dependencies"]?["database"] ?? .null
            #expect(database["state"] == "DOWN" && database["detail"]?["canMakeOrders"] == .bool(false), "\(database)")
            #expect(try await bed.send(.GET, "/orders?page=0").status == 200)
            _ = try await bed.pool.query("drop trigger no on orders")
            try await inTime("ready again", within: .seconds(5)) { try await bed.send(.GET, "/readyz").status == 200 }
            #expect(try await bed.count("select count(*) from orders") == 1, "the question made no order")
            #expect(try await bed.place(1)["status"] == "CONFIRMED")
        }
    }

    @Test("a broker that takes no messages: degraded, and ready while the other way sells")
    func blockedBroker() async throws {
        let publisher = ScriptedPublisher()
        try await TestBed.run(
            settings: ["OUTBOX_LIMIT": "2", "PRODUCT_BREAKER_WAIT": "60s"],
            endpoints: MessageEndpoints(publisher: publisher, events: ScriptedPublisher(), results: ScriptedResults())
        ) { bed in
            let broker = { try await bed.waitUntilReady("/readyz?verbose")["dependencies"]["broker"] ?? .null }
            #expect(try await broker()["state"] == "UP")
            publisher.set {
                $0.blocked = "low on memory"
                $0.failure = BrokerError(code: .notConnected, message: "scripted")
            }
            #expect(try await broker()["state"] == "DEGRADED")
            #expect(try await broker()["detail"]?["blocked"] == "low on memory")
            for _ in 0..<2 { #expect(try await bed.place(1, path: "/v2/orders").status == 202) }
            #expect(try await bed.place(1, path: "/v2/orders").status == 503)
            // Orders are sold over HTTP.
            try await bed.waitUntilReady()
            #expect(try await bed.place(1)["status"] == "CONFIRMED")
            let breaker = try await bed.send(
                .POST,
                "/admin/circuitbreakers/productServer",
                #"{"updateState":"FORCE_OPEN"}"#,
                admin: true
            )
            #expect(breaker.status == 200)
            #expect(try await bed.send(.GET, "/readyz").status == 503, "neither way takes orders")
        }
    }

    @Test(
        "a frozen database: every order has its answer within the deadline, reads are 503 with Retry-After, and what nobody waits for is not made"
    )
    func frozen() async throws {
        let postgres = try PrivatePostgres.start(fsync: false)
        defer { postgres.stop() }
        let product = try await ProductStandIn.start(stock: [1: 1_000])
        let deadline = Duration.seconds(2)
        let server = try await TestBed.start(postgres.url, product.url, ["ORDER_DEADLINE": "2s"])
        let made = try await TestBed.send(server.peer, .POST, "/orders", #"{"productId":1,"quantity":1}"#)
        #expect(made["status"] == "CONFIRMED")
        let id = try made.orderID
        postgres.pause()
        try await Lateness.watched { late in
            let orders = try await withThrowingTaskGroup(of: (TestBed.Answer, Duration).self) { group in
                for place in 0..<20 {
                    group.addTask {
                        // Some begin when others have waited for a while.
                        try await Task.sleep(for: .milliseconds(place * 100))
                        let began = ContinuousClock.now
                        let answer = try await TestBed.send(server.peer, .POST, "/orders", #"{"productId":1,"quantity":1}"#)
                        return (answer, ContinuousClock.now - began)
                    }
                }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            for (answer, took) in orders {
                #expect(answer.status == 503 && answer.headers.contains(name: "retry-after"), "\(answer)")
                #expect(took < deadline + .seconds(1) + late.sum, "\(took), and the machine was late by \(late.sum)")
            }
            try await readsEnd(server, id, late)
        }
        #expect(try await TestBed.send(server.peer, .GET, "/livez").status == 200)
        try await inTime("not ready") { try await TestBed.send(server.peer, .GET, "/readyz").status == 503 }
        postgres.resume()
        try await inTime("sells again") {
            try await TestBed.send(server.peer, .POST, "/orders", #"{"productId":1,"quantity":1}"#)["status"] == "CONFIRMED"
        }
        let pool = PostgresPool(configuration: try PostgresConfiguration.patient(postgres.url), maximumConnections: 1)
        // At most the group that was at the database when it froze; the others were told 503 and are not made behind their buyers' backs.
        let late = try await pool.query("select count(*) from orders where id > $1", [.int(id)]).one().decode(0, as: Int64.self)
        #expect(late <= 6, "\(late) of 20 orders that were told 503, with those of the last look")
        await pool.shutdown()
        await server.stop()
        await product.stop()
    }

    /// Every other route answers in time, too.
    private func readsEnd(_ server: TestBed.Server, _ id: Int64, _ late: Lateness) async throws {
        try await withThrowingTaskGroup(of: (String, TestBed.Answer, Duration).self) { group in
            let all: [(HTTPMethod, String)] = [
                (.GET, "/orders/\(id)"), (.GET, "/orders"), (.GET, "/u-1/orders"), (.GET, "/orders/\(id)/events"),
                (.POST, "/orders/\(id)/cancel"),
                (.GET, "/orders/\(id)?wait=1s"),
            ]
            for (method, path) in all {
                group.addTask {
                    let began = ContinuousClock.now
                    return (path, try await TestBed.send(server.peer, method, path), ContinuousClock.now - began)
                }
            }
            group.addTask {
                let began = ContinuousClock.now
                return ("outbox", try await TestBed.send(server.admin, .GET, "/internal/outbox"), ContinuousClock.now - began)
            }
            for try await (path, answer, took) in group {
                #expect(answer.status == 503 && answer.headers.contains(name: "retry-after"), "\(path): \(answer)")
                #expect(took < .seconds(5) + late.sum, "\(path): \(took), and the machine was late by \(late.sum)")
            }
        }
    }

    @Test("a database that is away, and one whose connections are all taken: 503 with Retry-After on every route")
    func away() async throws {
        let postgres = try PrivatePostgres.start(fsync: false)
        defer { postgres.stop() }
        let product = try await ProductStandIn.start(stock: [1: 1_000])
        let server = try await TestBed.start(postgres.url, product.url, [:])
        #expect(try await TestBed.send(server.peer, .POST, "/orders", #"{"productId":1,"quantity":1}"#)["status"] == "CONFIRMED")
        postgres.kill()
        for (method, path) in [(HTTPMethod.POST, "/orders"), (.GET, "/orders/1"), (.GET, "/orders"), (.POST, "/orders/1/cancel")] {
            let answer = try await TestBed.send(server.peer, method, path, method == .POST ? #"{"productId":1,"quantity":1}"# : nil)
            #expect(answer.status == 503 && answer.headers.contains(name: "retry-after"), "\(path): \(answer)")
        }
        #expect(try await TestBed.send(server.peer, .GET, "/readyz").status == 503)
        try postgres.restart()
        try await inTime("sells again", within: .seconds(5)) {
            try await TestBed.send(server.peer, .POST, "/orders", #"{"productId":1,"quantity":1}"#)["status"] == "CONFIRMED"
        }
        await server.stop()
        await product.stop()
    }
}
