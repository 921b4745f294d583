import Foundation
import NIOHTTP1
import Testing

extension Faults {
    /// Two product servers and two order servers behind the gateway.
    @Suite("Faults and truth of two instances", .serialized, .stack(instances: 2), .timeLimit(.minutes(20)))
    struct TwoInstances {}
}

extension Faults.TwoInstances {
    @Test func anOrderIsTheSameThroughBothServers() async throws {
        let stack = try Stack.current
        let first = try await Client(try stack.address("ORDER_PORT"))
        let second = try await Client(try stack.address("ORDER_2_PORT"))
        let product = try await stack.addProduct("Shared", price: 1_000, stock: 100)

        let made = try await first.order("{\"productId\":\(product),\"quantity\":3,\"buyerId\":\"u-1\"}", key: "same-\(UUID().uuidString)")
        #expect(made.status == 200)
        #expect(made.json["status"] as? String == "CONFIRMED", "\(made.text)")
        let id = try #require(made.id)
        let read = try await second.call(.GET, "/orders/\(id)")
        #expect(read.status == 200)
        #expect(read.json as NSDictionary == made.json as NSDictionary)

        // Undecided at its deadline it is asked for again; by then it may have been done.
        try await until("the order is cancelled") {
            let answer = try await second.call(.POST, "/orders/\(id)/cancel")
            return answer.json["status"] as? String == "CANCELLED" || answer.error == "INVALID_STATE"
        }
        #expect(try await first.call(.GET, "/orders/\(id)").json["status"] as? String == "CANCELLED")
        // Both product servers say the same stock.
        for port in ["PRODUCT_PORT", "PRODUCT_2_PORT"] {
            let server = try await Client(try stack.address(port))
            try await until("\(port) shows all units again") {
                try await server.call(.GET, "/products/\(product)").json["stock"] as? Int == 100
            }
            server.close()
        }
        for client in [first, second] { client.close() }
    }

    @Test func oneKeySentToBothServersMakesOneOrder() async throws {
        let stack = try Stack.current
        let clients = [try await Client(try stack.address("ORDER_PORT")), try await Client(try stack.address("ORDER_2_PORT"))]
        let product = try await stack.addProduct("Shared", price: 1_000, stock: 1000)
        let run = UUID().uuidString.prefix(8)
        var ids: Set<Int64> = []
        for number in 1...30 {
            let answers = try await withThrowingTaskGroup(of: (Int, Int64?, String?).self) { group in
                for client in clients {
                    group.addTask {
                        let answer = try await client.order(
                            "{\"productId\":\(product),\"quantity\":1,\"buyerId\":\"u-1\"}",
                            key: "twins-\(run)-\(number)"
                        )
                        return (answer.status, answer.id, answer.json["status"] as? String)
                    }
                }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            #expect(answers.map(\.0) == [200, 200])
            #expect(answers.map(\.2) == ["CONFIRMED", "CONFIRMED"])
            #expect(answers[0].1 != nil && answers[0].1 == answers[1].1, "\(answers)")
            answers.first?.1.map { _ = ids.insert($0) }
        }
        #expect(ids.count == 30)
        let server = try await Client(try stack.address("PRODUCT_PORT"))
        try await until("thirty units are sold") { try await server.call(.GET, "/products/\(product)").json["stock"] as? Int == 970 }
        for client in clients + [server] { client.close() }
    }
}
