import NIOHTTP1
import PostgresClient
import ServerKit
import StockGateTestSupport
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
            configuration: try PostgresConfiguration(url: String(bed.databaseURL.dropLast(name.count)) + "postgres")
        )
        _ = try await owner.query("alter database \(name) set default_transaction_read_only = \(isReadOnly ? "on" : "off")")
        if endsSessions {
            _ = try await owner.query("select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", [.text(name)])
        }
    }

    private func eventually(_ what: Comment, within bound: Duration = .seconds(30), _ isTrue: () async throws -> Bool) async throws {
        let deadline = ContinuousClock.now + bound
        while try await !isTrue() {
            guard ContinuousClock.now < deadline else { throw TestBed.Failure(description: "not in time: \(what)") }
            try await Task.sleep(for: .milliseconds(10))
        }
    }

    @Test("read-only for a while: not ready, 503 with Retry-After; within 5 s of its end it sells, without a restart")
    func readOnly() async throws {
        try await TestBed.run(stock: [1: 100]) { bed in
            #expect(try await bed.place(1)["status"] == "CONFIRMED")
            #expect(try await bed.send(.GET, "/readyz").status == 200)
            try await self.setReadOnly(bed, true, endsSessions: true)
            try await self.eventually("not ready") { try await bed.send(.GET, "/readyz").status == 503 }
            let health = try await bed.send(.GET, "/readyz?verbose")
            #expect(health["details"]["dependencies"]?["database"]?["state"] == "DOWN", "\(health)")
            for path in ["/orders", "/v1/orders"] {
                let refused = try await bed.place(1, path: path)
                #expect(refused.status == 503 && refused.headers.contains(name: "retry-after"), "\(refused)")
            }
            // Reads need no more than a database that may be read.
            #expect(try await bed.send(.GET, "/orders?page=0").status == 200)
            try await self.setReadOnly(bed, false, endsSessions: false)
            try await self.eventually("sells again", within: .seconds(5)) { try await bed.place(1)["status"] == "CONFIRMED" }
            try await self.eventually("ready again", within: .seconds(5)) { try await bed.send(.GET, "/readyz").status == 200 }
        }
    }

    @Test("a broker that takes no messages: degraded, and ready while the other way sells")
    func blockedBroker() async throws {
        let publisher = ScriptedPublisher()
        try await TestBed.run(
            settings: ["OUTBOX_LIMIT": "2", "PRODUCT_BREAKER_WAIT": "60s"],
            endpoints: MessageEndpoints(publisher: publisher, events: ScriptedPublisher(), results: ScriptedResults())
        ) { bed in
            let broker = { try await bed.send(.GET, "/readyz?verbose")["dependencies"]["broker"] ?? .null }
            #expect(try await broker()["state"] == "UP")
            publisher.set {
                $0.blocked = "low on memory"
                $0.failure = BrokerError(code: .notConnected, message: "scripted")
            }
            #expect(try await broker()["state"] == "DEGRADED")
            #expect(try await broker()["detail"]?["blocked"] == "low on memory")
            for _ in 0..<2 { #expect(try await bed.place(1, path: "/v2/orders").status == 202) }
            #expect(try await bed.place(1, path: "/v2/orders").status == 503)
            #expect(try await bed.send(.GET, "/readyz").status == 200, "orders are sold over HTTP")
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
}
