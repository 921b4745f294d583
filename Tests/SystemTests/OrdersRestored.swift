import Foundation
import NIOHTTP1
import PostgresClient
import PrivateServers
import Testing

extension Faults.Start {
    /// The order database is an empty backup while the ledger knows the orders of before, and then the sequence of ids is behind its table: no order is confirmed
    /// without a unit, and the log says what has happened.
    @Test func theOrderDatabaseWasRestored() async throws {
        let postgres = try PrivatePostgres.start(fsync: false)
        defer { postgres.stop() }
        let orderDatabase = postgres.url.replacingOccurrences(of: "/postgres", with: "/template1", options: [.anchored, .backwards])
        try await Self.withServer("product-server", ["PRODUCT_DATABASE_URL": postgres.url]) { product in
            let (productAddress, _) = try await product.ready()
            let settings = [
                "ORDER_DATABASE_URL": orderDatabase, "PRODUCT_SERVER_URL": productAddress, "PRODUCT_TIMEOUT": "10s",
                "ORDER_DEADLINE": "20s",
                "RECOVERY_AGE": "30s",
            ]
            let products = try await Client(productAddress)
            defer { products.close() }
            let made = try await products.call(
                .POST,
                "/products",
                json: #"{"name":"A","price":1,"stock":10,"stockStrategy":"REDIS_FIRST"}"#
            )
            let id = try #require(made.id, "\(made.text)")
            /// Makes so many orders at a server of its own, and returns what each came to and the server's errors and warnings about ids.
            func order(_ count: Int) async throws -> (states: [String], errors: [String], warnings: [String]) {
                var result: (states: [String], errors: [String], warnings: [String]) = ([], [], [])
                try await Self.withServer("order-server", settings) { server in
                    let orders = try await Client(try await server.ready().address)
                    defer { orders.close() }
                    for _ in 0..<count {
                        let answer = try await orders.call(.POST, "/orders", json: "{\"productId\":\(id),\"quantity\":1}")
                        result.states.append(answer.json["status"] as? String ?? answer.error ?? answer.text)
                    }
                    server.send(SIGTERM)
                    _ = try await server.ended()
                    result.errors = server.lines(" error ").map(String.init)
                    result.warnings = server.lines("a sequence of ids was behind").map(String.init)
                }
                return result
            }
            let before = try await order(5)
            #expect(before.states == Array(repeating: "CONFIRMED", count: 5))
            #expect(before.errors.isEmpty && before.warnings.isEmpty, "\(before)")

            let owner = try PostgresConnection(configuration: try PostgresConfiguration.patient(orderDatabase))
            _ = try await owner.query("truncate orders, saga_work, outbox")
            _ = try await owner.query("select setval('order_ids', 1, false)")
            let after = try await order(7)
            // Ten units: five for the orders that are gone, five for those of now.
            #expect(after.states == Array(repeating: "CONFIRMED", count: 5) + Array(repeating: "INSUFFICIENT_STOCK", count: 2), "\(after)")
            #expect(!after.errors.isEmpty && after.errors.allSatisfy { $0.contains("an order id was used before") }, "\(after.errors)")

            _ = try await owner.query(
                "insert into orders (id, product_id, quantity, status) select n, 1, 1, 'FAILED' from generate_series(50000, 50100) n"
            )
            let behind = try await order(0)
            #expect(behind.errors.isEmpty && behind.warnings.count == 1, "\(behind)")
            #expect(try await owner.query("select last_value from order_ids").one().decode(0, as: Int64.self) == 50_101)
            await owner.close()
            let books = try await products.call(.GET, "/products/\(id)").json
            #expect(books["stock"] as? Int == 0)
        }
    }
}
