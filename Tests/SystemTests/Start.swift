import Foundation
import NIOHTTP1
import PrivateServers
import Testing

extension Faults {
    /// What the servers' processes do at their start, with a database that comes later, never, or does not let them in.
    @Suite("Start", .serialized, .timeLimit(.minutes(5)))
    struct Start {}
}

extension Faults.Start {
    /// A server with a Redis of its own, where it needs one.
    static func withServer(
        _ name: String,
        _ settings: [String: String],
        _ body: (ServerProcess) async throws -> Void
    ) async throws {
        let redis = name == "product-server" ? try PrivateRedis.start(options: ["--save", ""]) : nil
        defer { redis?.stop() }
        let server = try ServerProcess(name, settings.merging(["REDIS_URL": redis?.url ?? ""]) { $1 })
        defer { server.destroy() }
        do {
            try await body(server)
        } catch {
            throw SystemFailure(description: "\(error); the log of \(name): \(server.log)")
        }
    }

    private static func setting(_ name: String) -> String { name == "product-server" ? "PRODUCT_DATABASE_URL" : "ORDER_DATABASE_URL" }

    @Test(arguments: ["product-server", "order-server"])
    func theDatabaseComesLater(name: String) async throws {
        let postgres = try PrivatePostgres.start(fsync: false)
        defer { postgres.stop() }
        postgres.kill()
        try await Self.withServer(name, [Self.setting(name): postgres.url]) { server in
            try await until("it waits") { !server.lines("PostgreSQL is not there yet").isEmpty }
            // The length of the fault: several attempts.
            try await Task.sleep(for: .seconds(2))
            #expect(server.exitStatus == nil && server.ports == nil)
            try postgres.restart()
            let began = ContinuousClock.now
            let (address, _) = try await server.ready()
            print("FAULT \(name) started before its database: ready \((ContinuousClock.now - began).text) after the database")
            let client = try await Client(address)
            defer { client.close() }
            try await until("it says ready") { try await client.call(.GET, "/readyz").status == 200 }
            #expect(server.lines("PostgreSQL is not there yet").count == 1, "\(server.log)")
            #expect(server.lines("PostgreSQL is there").count == 1)
            #expect(server.lines(" warning ").count <= 2 && server.lines(" error ").isEmpty, "\(server.log)")
            server.send(SIGTERM)
            let status = try await server.ended()
            #expect(status == 0)
        }
    }

    /// Connections are refused, or not answered.
    @Test(arguments: ["product-server", "order-server"])
    func aStopEndsTheWait(name: String) async throws {
        let postgres = try PrivatePostgres.start(fsync: false)
        defer { postgres.stop() }
        postgres.pause()
        // An attempt at the frozen server lasts for three minutes: whoever stops within one has not waited for its end.
        let frozen = postgres.url + (postgres.url.contains("?") ? "&" : "?") + "connect_timeout=180"
        for address in [frozen, "postgresql://127.0.0.1:1/nothing"] {
            try await Self.withServer(name, [Self.setting(name): address]) { server in
                // A frozen server is first missed when the connection's own bound has passed: it is stopped within the attempt.
                if address != frozen { try await until("it waits") { !server.lines("is not there yet").isEmpty } }
                try await until("its services run") { server.hasHandlers }
                let began = ContinuousClock.now
                server.send(SIGTERM)
                let status = try await server.ended()
                #expect(status == 0, "\(server.log)")
                #expect(ContinuousClock.now - began < .seconds(60))
            }
        }
    }

    @Test(arguments: ["product-server", "order-server"])
    func theDatabaseNeverComes(name: String) async throws {
        for address in ["postgresql://u:hidden1@127.0.0.1:1/nothing", "postgresql://u:hidden1@nobody.invalid/nothing"] {
            try await Self.withServer(name, [Self.setting(name): address, "START_TIMEOUT": "1s"]) { server in
                let status = try await server.ended()
                #expect(status == 1)
                let last = server.log.split(separator: "\n").last ?? ""
                #expect(
                    last.hasPrefix("\(name): \(Self.setting(name)): PostgreSQL was not there within START_TIMEOUT (1s): "),
                    "\(server.log)"
                )
                #expect(!server.log.contains("hidden1"))
            }
        }
    }

    /// Another session holds the table of migrations.
    @Test(arguments: ["product-server", "order-server"])
    func theMigrationsAreLocked(name: String) async throws {
        let postgres = try PrivatePostgres.start(fsync: false)
        defer { postgres.stop() }
        try await Self.withServer(name, [Self.setting(name): postgres.url]) { server in
            _ = try await server.ready()
            server.send(SIGTERM)
            _ = try await server.ended()
        }
        let lock = try await RowLock(url: postgres.url, "lock table schema_migrations in access exclusive mode")
        try await Self.withServer(name, [Self.setting(name): postgres.url, "START_TIMEOUT": "4s"]) { server in
            let began = ContinuousClock.now
            try await until("it says what it waits for") { !server.lines("another session holds a lock on schema_migrations").isEmpty }
            let status = try await server.ended()
            #expect(status == 1 && ContinuousClock.now - began < .seconds(60))
            let last = server.log.split(separator: "\n").last ?? ""
            #expect(
                last.hasPrefix("\(name): \(Self.setting(name)): PostgreSQL was not there within START_TIMEOUT (4s): another session holds"),
                "\(server.log)"
            )
        }
        await lock.end()
    }

    /// A server that waits, and then serves, is sent SIGHUP; tokens in a file change with it, on both sides of a call.
    @Test func aHangupReadsTokensAgainAndEndsNothing() async throws {
        let postgres = try PrivatePostgres.start(fsync: false)
        defer { postgres.stop() }
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("stockgate-tokens-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        func write(_ text: String, _ name: String) throws -> String {
            let file = folder.appendingPathComponent(name)
            try text.write(to: file, atomically: true, encoding: .utf8)
            return file.path
        }
        let (services, own) = (try write("shop:one\n", "services"), try write("one\n", "own"))
        postgres.kill()
        try await Self.withServer("product-server", ["PRODUCT_DATABASE_URL": postgres.url, "SERVICE_TOKENS_FILE": services]) { product in
            try await until("it waits") { !product.lines("is not there yet").isEmpty }
            product.send(SIGHUP)
            try await until("it has read again while it waits") {
                product.lines("SIGHUP: the files of secrets and certificates were read again").count == 1
            }
            try postgres.restart()
            let (address, _) = try await product.ready()
            let settings = [
                "ORDER_DATABASE_URL": postgres.url.replacingOccurrences(
                    of: "/postgres",
                    with: "/template1",
                    options: [.anchored, .backwards]
                ),
                "PRODUCT_SERVER_URL": address, "PRODUCT_SERVICE_TOKEN_FILE": own, "PRODUCT_ATTEMPTS": "1",
                "PRODUCT_TIMEOUT": "10s", "ORDER_DEADLINE": "20s", "RECOVERY_AGE": "30s",
            ]
            try await Self.withServer("order-server", settings) { order in
                let (products, orders) = (try await Client(address), try await Client(try await order.ready().address))
                defer {
                    products.close()
                    orders.close()
                }
                func add(_ token: String) async throws -> Client.Answer {
                    try await products.call(
                        .POST,
                        "/products",
                        json: #"{"name":"Hot","price":1,"stock":10}"#,
                        headers: [("Authorization", "Bearer \(token)")]
                    )
                }
                let made = try await add("one")
                let id = try #require(made.id, "\(made.text)")
                func sells() async throws -> Bool {
                    let answer = try await orders.call(.POST, "/orders", json: #"{"productId":\#(id),"quantity":1}"#)
                    return answer.json["status"] as? String == "CONFIRMED"
                }
                #expect(try await add("two").status == 403)
                #expect(try await sells())
                // The new token beside the old one; then the caller; then without the old one.
                _ = try write("shop:one\nshop:two\n", "services")
                product.send(SIGHUP)
                try await until("the new token is taken") { try await add("two").status == 200 }
                #expect(try await add("one").status == 200)
                _ = try write("two\n", "own")
                order.send(SIGHUP)
                try await until("the order server has read again") { order.lines("changed=PRODUCT_SERVICE_TOKEN_FILE").count == 1 }
                _ = try write("shop:two\n", "services")
                product.send(SIGHUP)
                try await until("the old token is refused") { try await add("one").status == 403 }
                #expect(try await sells())
                // A file that cannot be used changes nothing.
                _ = try write("", "services")
                product.send(SIGHUP)
                try await until("it says what is wrong") {
                    !product.lines("error product-server: SIGHUP: this setting cannot be used").isEmpty
                }
                #expect(try await add("two").status == 200)
                #expect(product.exitStatus == nil && order.exitStatus == nil)
                // The last one is written behind what is wrong.
                try await until("it says that it has read four times") {
                    product.lines("SIGHUP: the files of secrets and certificates were read again").count >= 4
                }
                #expect(product.lines("SIGHUP: the files of secrets and certificates were read again").count == 4)
            }
        }
    }

    @Test(arguments: ["product-server", "order-server"])
    func whatCanNeverWorkIsSaidAtOnce(name: String) async throws {
        let postgres = try PrivatePostgres.start(fsync: false)
        defer { postgres.stop() }
        let host = "127.0.0.1:\(postgres.port)"
        for (address, words) in [
            ("postgresql://postgres:hidden1@\(host)/nothing", #"database "nothing" does not exist"#),
            ("postgresql://nobody:hidden1@\(host)/postgres", #"role "nobody" does not exist"#),
            ("postgresql://postgres:hidden1@\(host)/postgres?sslmode=require", "server does not support SSL"),
        ] {
            try await Self.withServer(name, [Self.setting(name): address]) { server in
                let status = try await server.ended()
                #expect(status == 1)
                let said = server.log.split(separator: "\n").filter { $0.hasPrefix("\(name): ") }
                #expect(said.count == 1 && said.first?.contains(words) == true, "\(server.log)")
                #expect(said.first?.hasPrefix("\(name): \(Self.setting(name)) leads to nothing that can be used: ") == true)
                #expect(server.lines("is not there yet").isEmpty && !server.log.contains("hidden1"))
            }
        }
    }
}
