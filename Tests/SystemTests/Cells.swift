import Eventually
import Foundation
import NIOHTTP1
import PostgresClient
import PrivateServers
import Testing

/// Two cells: each has a product server, a Redis and a product database of its own. One order server, one gateway and one broker before them.
@Suite("Cells", .serialized, .stackOfTwoCells, .timeLimit(.minutes(20)))
struct Cells {}

extension Trait where Self == StackTrait {
    /// One product server in each of two cells. A command without a result is left to recovery soon.
    static var stackOfTwoCells: StackTrait {
        StackTrait(
            instances: 1,
            hasBroker: true,
            settings: ["CELLS": "2", "ASYNC_RECOVERY_AGE": "20s", "LAME_DUCK": "0s", "PRODUCT_BREAKER_WAIT": "200ms"]
        )
    }
}

extension Cells {
    /// A product of a cell, sold through Redis.
    private func product(_ cell: Int, stock: Int) async throws -> Int64 {
        let server = try await Client(try Stack.current.address("PRODUCT", cell, "PORT"))
        defer { server.close() }
        let body = #"{"name":"Cell \#(cell)","price":1000,"stock":\#(stock),"stockStrategy":"REDIS_FIRST"}"#
        let made = try await server.call(.POST, "/products", json: body)
        return try #require(made.id, "\(made.text)")
    }

    private func stock(_ cell: Int, _ product: Int64) async throws -> Int? {
        let server = try await Client(try Stack.current.address("PRODUCT", cell, "PORT"))
        defer { server.close() }
        return try await server.call(.GET, "/products/\(product)").json["stock"] as? Int
    }

    private func body(_ product: Int64, quantity: Int = 1) -> String {
        #"{"productId":\#(product),"quantity":\#(quantity),"buyerId":"u-1"}"#
    }

    /// The orders of a product, by state.
    private func orders(_ product: Int64) async throws -> [String: Int] {
        let database = try PostgresConnection(
            configuration: PostgresConfiguration.patient(try await Stack.current.addresses().address("ORDER_DATABASE_URL"))
        )
        var found: [String: Int] = [:]
        for row in try await database.query("select status, count(*) from orders where product_id = $1 group by 1", [.int(product)]) {
            found[try row.decode(0)] = try row.decode(1, as: Int.self)
        }
        await database.close()
        return found
    }

    @Test("a cell that is down harms its own products: the other sells over HTTP and the broker, and its own commands wait for it")
    func oneIsDown() async throws {
        let stack = try Stack.current
        let (first, second) = (try await product(1, stock: 1_000), try await product(2, stock: 1_000))
        #expect((1...999_999).contains(first) && second >= 1_000_000)
        let gateway = try await Client(try stack.address("GATEWAY_PORT"))
        defer { gateway.close() }
        for (cell, product) in [("1-999999", first), ("1000000-", second)] {
            #expect(try await gateway.call(.GET, "/product-service/products/\(product)").id == product)
            let list = try await gateway.call(.GET, "/product-service/cells/\(cell)/products")
            #expect(list.status == 200 && list.text.contains("\"id\":\(product)"), "\(list.text)")
        }
        #expect(try await gateway.call(.GET, "/product-service/products").status == 404)
        let orders = try await Client(try stack.address("ORDER_PORT"))
        defer { orders.close() }
        for product in [first, second] {
            #expect(try await orders.order(body(product), key: "both-\(product)").json["status"] as? String == "CONFIRMED")
            #expect(try await orders.call(.POST, "/v2/orders", json: body(product)).status == 202)
        }
        try await until("both are confirmed over the broker") {
            let (one, two) = (try await self.orders(first), try await self.orders(second))
            return one["CONFIRMED"] == 2 && two["CONFIRMED"] == 2
        }

        try await stack.run("kill product-2")
        // Enough for the breaker of the cell that is down.
        for number in 1...12 {
            _ = try await orders.call(.POST, "/orders", json: body(second), headers: [("Idempotency-Key", "down-\(number)")])
        }
        for number in 1...10 {
            let sold = try await orders.call(.POST, "/orders", json: body(first), headers: [("Idempotency-Key", "up-\(number)")])
            #expect(sold.status == 200 && sold.json["status"] as? String == "CONFIRMED", "\(sold.text)")
            for product in [second, first] { #expect(try await orders.call(.POST, "/v2/orders", json: body(product)).status == 202) }
        }
        let admin = try await Client(try stack.address("ORDER_ADMIN_PORT"))
        defer { admin.close() }
        let closed = #"state="closed""#
        let states = try await admin.call(.GET, "/metrics").text.split(separator: "\n").filter { $0.contains(closed) }
        #expect(states.contains { $0.contains("productServer@1-999999") && $0.hasSuffix(" 1") }, "\(states)")
        #expect(states.contains { $0.contains("productServer@1000000-") && $0.hasSuffix(" 0") }, "\(states)")
        try await until("the first cell's commands are decided behind those that wait") { try await self.orders(first)["CONFIRMED"] == 22 }
        #expect(try await self.orders(second)["CONFIRMED"] == 2)

        try await stack.run("start product-2")
        try await eventuallyNone("orders of the second cell without an outcome") { try await self.orders(second)["PENDING"] ?? 0 }
        let sold = try await self.orders(second)["CONFIRMED"] ?? 0
        #expect(sold >= 12)
        try await until("the stock of the second cell is exact") { try await stock(2, second) == 1_000 - sold }
        #expect(try await stock(1, first) == 1_000 - 22)
    }

    @Test("a product moves under a sale: the books are exact over both cells, and every old key is answered as before")
    func aProductMoves() async throws {
        let stack = try Stack.current
        let product = try await product(1, stock: 300)
        let orders = try await Client(try stack.address("ORDER_PORT"))
        let gateway = try await Client(try stack.address("GATEWAY_PORT"))
        defer {
            orders.close()
            gateway.close()
        }
        var before: [Int64] = []
        for number in 1...40 {
            let answer = try await orders.order(body(product), key: "move-\(product)-\(number)")
            #expect(answer.json["status"] as? String == "CONFIRMED", "\(answer.text)")
            before.append(try #require(answer.id))
        }
        #expect(try await orders.call(.POST, "/orders/\(before[0])/cancel").json["status"] as? String == "CANCELLED")

        // Buyers go on all the time, each with one key until he has his answer.
        let buyers = Task {
            var confirmed = 0
            var number = 0
            while !Task.isCancelled {
                number += 1
                let client = try await Client(try stack.address("ORDER_PORT"))
                defer { client.close() }
                let answer = try? await client.call(
                    .POST,
                    "/orders",
                    json: body(product),
                    headers: [("Idempotency-Key", "during-\(product)-\(number)")]
                )
                if answer?.json["status"] as? String == "CONFIRMED" { confirmed += 1 }
                try? await Task.sleep(for: .milliseconds(20))
            }
            return confirmed
        }
        let moved = "MOVED_PRODUCTS=\(product):2 $STACK_SCRIPT"
        // The steps of docs/how-to/move-a-product.md.
        try await stack.shell("exec env \(moved) restart product-1")
        let old = try await Client(try stack.address("PRODUCT_PORT"))
        let misdirected = try await old.call(.GET, "/products/\(product)")
        #expect(misdirected.status == 421 && misdirected.error == "MISDIRECTED", "\(misdirected.text)")
        let command = "$(dirname \"$STACK_SCRIPT\")/move-product"
        try await stack.shell(
            "eval \"$($STACK_SCRIPT env)\"; exec \(command) copy \"$PRODUCT_DATABASE_URL\" \"$CELL_2_DATABASE_URL\" \(product)"
        )
        try await stack.shell("exec env \(moved) restart product-2 order")
        try await stack.shell("exec env \(moved) start gateway")
        old.close()

        let again = try await Client(try stack.address("ORDER_PORT"))
        let new = try await Client(try stack.address("PRODUCT_2_PORT"))
        defer {
            again.close()
            new.close()
        }
        // A sale in the new cell; a repeat of an order; a cancellation of what the old cell had sold.
        for number in 1...10 {
            #expect(try await again.order(body(product), key: "after-\(product)-\(number)").json["status"] as? String == "CONFIRMED")
        }
        let repeated = try await again.order(body(product), key: "move-\(product)-5")
        #expect(repeated.id == before[4])
        #expect(try await again.call(.POST, "/orders/\(before[1])/cancel").json["status"] as? String == "CANCELLED")
        buyers.cancel()
        let during = try await buyers.value
        try await eventuallyNone("orders without an outcome") { try await self.orders(product)["PENDING"] ?? 0 }
        let states = try await self.orders(product)
        #expect((states["CONFIRMED"] ?? 0) >= 48 + during && states["CANCELLED"] == 2, "\(states)")
        let left = 300 - (states["CONFIRMED"] ?? 0)
        try await until("the stock is exact") { try await stock(2, product) == left }
        // Old keys: the first result for what was sold, closed for what was never told, and a cancelled one gives nothing a second time.
        func change(_ verb: String, _ key: String, _ order: Int64) async throws -> Client.Answer {
            try await new.call(
                .PATCH,
                "/products/\(product)/stock/\(verb)-by-order",
                json: #"{"orderId":\#(order),"quantity":1}"#,
                headers: [("Idempotency-Key", key), ("Idempotency-Attempt", "2")]
            )
        }
        for (index, id) in before.enumerated().dropFirst(2) {
            let answer = try await change("decrease", "DEC-\(id)", id)
            #expect(answer.status == 200 && answer.json["remainingStock"] as? Int == 300 - index - 1, "\(answer.text)")
        }
        for id in before.prefix(2) { #expect(try await change("increase", "INC-\(id)", id).status == 200) }
        #expect(try await stock(2, product) == left)
        // It is sold through the new cell's Redis, and the two say the same.
        let admin = try await Client(try stack.address("PRODUCT_2_ADMIN_PORT"))
        defer { admin.close() }
        try await until("the audit of the new cell agrees") {
            let audit = try await admin.call(.GET, "/admin/audit/products/\(product)").json
            return audit["databaseStock"] as? Int == left && audit["redisStock"] as? Int == left
        }
        // Through the gateway the product is the new cell's.
        #expect(try await gateway.call(.GET, "/product-service/products/\(product)").json["stock"] as? Int == left)
        try await stack.shell(
            "eval \"$($STACK_SCRIPT env)\"; exec \(command) forget \"$PRODUCT_DATABASE_URL\" \"$CELL_2_DATABASE_URL\" \(product)"
        )
        #expect(try await again.order(body(product), key: "last-\(product)").json["status"] as? String == "CONFIRMED")
        #expect(try await stock(2, product) == left - 1)
    }
}
