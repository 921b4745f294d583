import Dispatch
import Eventually
import HotPath
import HTTPTypes
import Hummingbird
import HummingbirdTesting
import NIOCore
import NIOPosix
import PostgresClient
import PrivateServers
import ServerKit
import StockGate
import StrictJSON
import Testing

@testable import ProductServer

/// `POST /products` under an `Idempotency-Key`.
@Suite(.serialized, .timeLimit(.minutes(10)))
struct ProductKeyTests {
    private let body = #"{"name":"Keyboard","price":39000,"stock":100}"#

    private func count(_ server: ProductServerFixture, _ table: String) async throws -> Int64 {
        try await server.engine.ledger.pool.query("select count(*) from \(table)").one().decode(0, as: Int64.self)
    }

    @Test func aRepeatFindsTheFirstProductAsItIs() async throws {
        try await ProductServerFixture.with { server in
            let first = try await server.ask(.post, "/products", body, key: "p-1")
            #expect(first.status == 200 && first.headers[.idempotencyReplayed] == nil)
            // The same values, written otherwise, with what a POST ignores; under both spellings of the key and the path.
            for (path, key, body) in [
                ("/products", "p-1", body), ("/v1/products", "\"p-1\"", body),
                (
                    "/products", "p-1",
                    #" { "stock" : 100, "price":39000, "code":null, "colour":"red", "name":"Key\u0062oard", "stockStrategy":"DB_ONLY" } "#
                ),
            ] {
                let again = try await server.ask(.post, path, body, key: key)
                #expect(again.status == 200 && again.body == first.body, "\(again.body)")
                #expect(again.headers[.idempotencyReplayed] == "true")
            }
            let changed = try await server.ask(.patch, "/products/1", #"{"name":"Other","price":1,"status":"DISCONTINUED"}"#)
            let later = try await server.ask(.post, "/products", body, key: "p-1")
            #expect(later.body == changed.body && later.headers[.idempotencyReplayed] == "true")
            // Without a key, and under another, it is another product.
            #expect(try await server.ask(.post, "/products", body)["id"] != first["id"])
            #expect(try await server.ask(.post, "/products", body, key: "p-2")["id"] != first["id"])
            #expect(try await count(server, "products") == 3)
            #expect(try await count(server, "product_stock") == 3)
        }
    }

    @Test func anotherPayloadIsRefused() async throws {
        try await ProductServerFixture.with { server in
            let given = #"{"name":"Keyboard","price":39000,"stock":100,"code":"K-1","stockStrategy":"REDIS_FIRST"}"#
            #expect(try await server.ask(.post, "/products", given, key: "p-1").status == 200)
            for (from, to) in [
                ("Keyboard", "keyboard"), ("39000", "39001"), ("\"stock\":100", "\"stock\":99"), ("K-1", "K-2"), (#","code":"K-1""#, ""),
                (#","stockStrategy":"REDIS_FIRST""#, ""), ("REDIS_FIRST", "DB_ONLY"),
            ] {
                let other = try await server.ask(.post, "/products", given.replacing(from, with: to), key: "p-1")
                #expect(other.status == 422 && other.error == "KEY_REUSED", "\(to): \(other.body)")
                #expect(other["details"] == .null, "it tells nothing of the first")
            }
            // Made up or named: not the same request, even where the code is.
            let made = try await server.ask(.post, "/products", body, key: "p-2")
            guard case .string(let code)? = made["code"] else { throw ProductServerFixture.Missing(what: "code") }
            let named = try await server.ask(.post, "/products", body.replacing("}", with: #","code":"\#(code)"}"#), key: "p-2")
            #expect(named.status == 422)
            // Texts that look the same and are not.
            let composed = #"{"name":"\u00e9","price":1,"stock":1}"#
            #expect(try await server.ask(.post, "/products", composed, key: "p-3").status == 200)
            #expect(try await server.ask(.post, "/products", composed.replacing(#"\u00e9"#, with: #"e\u0301"#), key: "p-3").status == 422)
            #expect(try await count(server, "products") == 3)
        }
    }

    @Test func aRefusedRequestDoesNotUseItsKey() async throws {
        try await ProductServerFixture.with { server in
            #expect(try await server.ask(.post, "/products", body.replacing("}", with: #","code":"K-1"}"#)).status == 200)
            let taken = try await server.ask(.post, "/products", body.replacing("}", with: #","code":"K-1"}"#), key: "p-1")
            #expect(taken.status == 400 && taken["details"]?["field"] == "code")
            #expect(try await server.ask(.post, "/products", #"{"name":"","price":1,"stock":1}"#, key: "p-1").status == 400)
            #expect(try await server.ask(.post, "/products", body, key: "\"p-1").status == 400)
            let other = try await server.ask(.post, "/products", body, key: "p-1")
            #expect(other.status == 200 && other.headers[.idempotencyReplayed] == nil)
            #expect(try await count(server, "product_requests") == 1)
        }
    }

    /// A code that was made up may belong to another product by hand: the next try makes one up at random, under the same key.
    @Test func aMadeUpCodeThatIsTakenIsMadeUpAgain() async throws {
        try await ProductServerFixture.with { server in
            #expect(try await server.ask(.post, "/products", body.replacing("}", with: #","code":"PRODUCT-2"}"#)).status == 200)
            let made = try await server.ask(.post, "/products", body, key: "p-1")
            guard case .string(let code)? = made["code"] else { throw ProductServerFixture.Missing(what: "code in \(made.body)") }
            #expect(code.hasPrefix("PRODUCT-R"))
            let again = try await server.ask(.post, "/products", body, key: "p-1")
            #expect(again.body == made.body && again.headers[.idempotencyReplayed] == "true")
        }
    }

    /// Runs `test` with something that asks the public port, also many times at once.
    private func withPort(
        _ server: ProductServerFixture,
        _ test: @escaping @Sendable (@escaping @Sendable (String, String) async throws -> ProductServerFixture.Answer) async throws -> Void
    ) async throws {
        let app = Application(
            router: server.routes.publicRouter,
            configuration: .init(address: .hostname("127.0.0.1", port: 0)),
            eventLoopGroupProvider: .shared(MultiThreadedEventLoopGroup.singleton)
        )
        try await app.test(.ahc(.http)) { client in
            try await test { body, key in
                let headers: HTTPFields = [.contentType: "application/json", .idempotencyKey: key]
                return try await client.execute(uri: "/products", method: .post, headers: headers, body: ByteBuffer(string: body)) {
                    response in
                    ProductServerFixture.Answer(
                        status: response.status.code,
                        body: String(buffer: response.body),
                        headers: response.headers
                    )
                }
            }
        }
    }

    @Test func twinsMakeOneProduct() async throws {
        try await ProductServerFixture.with { server in
            let (pool, body) = (server.engine.ledger.pool, body)
            try await withPort(server) { ask in
                for round in 1...10 {
                    let answers = try await withThrowingTaskGroup(of: ProductServerFixture.Answer.self) { group in
                        for twin in 0..<8 {
                            // One of two payloads gets the key, and all that have it the product.
                            let body = round.isMultiple(of: 2) && twin.isMultiple(of: 2) ? body.replacing("39000", with: "1") : body
                            group.addTask { try await ask(body, "round \(round)") }
                        }
                        return try await group.reduce(into: [ProductServerFixture.Answer]()) { $0.append($1) }
                    }
                    let made = answers.filter { $0.status == 200 }
                    #expect(made.count == (round.isMultiple(of: 2) ? 4 : 8), "\(answers.map(\.body))")
                    #expect(answers.filter { $0.status == 422 && $0.error == "KEY_REUSED" }.count == 8 - made.count)
                    #expect(made.allSatisfy { $0["id"] == made[0]["id"] })
                    #expect(made.count { $0.headers[.idempotencyReplayed] == nil } == 1)
                    #expect(try await pool.query("select count(*) from products").one().decode(0, as: Int64.self) == Int64(round))
                }
            }
            #expect(try await count(server, "product_stock") == 10)
        }
    }

    /// While the first of two has not ended, the second waits for it, and makes the product if the first is rolled back.
    @Test func theSecondWaitsForTheFirst() async throws {
        // The first holds the second for longer than a busy machine keeps this test waiting.
        try await ProductServerFixture.with(["LOCK_TIMEOUT": "60s", "STATEMENT_TIMEOUT": "60s"]) { server in
            struct Undone: Error {}
            #expect(try await server.ask(.post, "/products", body).status == 200)
            var configuration = try PostgresConfiguration.patient(server.postgres.url)
            configuration.idleInTransactionTimeout = .zero
            let pool = PostgresPool(configuration: configuration, maximumConnections: 2)
            let released = DispatchSemaphore(value: 0)
            let first = Task {
                // On a thread of its own, which may block.
                try await pool.transaction(timeout: .seconds(130)) { transaction in
                    _ = try transaction.query(
                        """
                        insert into product_requests (idempotency_key, product_id, name, price, stock, stock_strategy)
                        values ('held', 1, 'Other', 1, 1, 'DB_ONLY')
                        """
                    )
                    guard released.wait(timeout: .now() + 120) == .success else { return }
                    throw Undone()
                }
            }
            let activity =
                "select count(*) from pg_stat_activity where query like '%into product_requests%' and pid <> pg_backend_pid() and "
            try await Self.wait(pool, activity + "state = 'idle in transaction'")
            let body = body
            try await withPort(server) { ask in
                async let second = ask(body, "held")
                try await Self.wait(pool, activity + "wait_event_type = 'Lock'")
                released.signal()
                await #expect(throws: Undone.self) { try await first.value }
                let answer = try await second
                #expect(answer.status == 200 && answer.headers[.idempotencyReplayed] == nil, "\(answer.body)")
            }
            await pool.shutdown()
        }
    }

    private static func wait(_ pool: PostgresPool, _ sql: String) async throws {
        try await eventually(sql) { try await pool.query(sql).one().decode(0, as: Int64.self) != 0 }
    }
}
