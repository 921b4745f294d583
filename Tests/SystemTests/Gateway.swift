import Foundation
import NIOHTTP1
import PostgresClient
import PrivateServers
import Testing

extension Faults.TwoInstances {
    /// Requests that an instance has answered, over all routes.
    private static func requests(_ stack: Stack, _ kind: String, _ instance: Int) async throws -> Double {
        let admin = try await Client(try stack.address(kind, instance, "ADMIN_PORT"))
        defer { admin.close() }
        return try await admin.metric("stockgate_http_requests_total")
    }

    @Test(arguments: ["order", "product"])
    func aDeadInstanceIsTakenOutAndReturns(_ kind: String) async throws {
        let stack = try Stack.current
        let gateway = try await Client(try stack.address("GATEWAY_PORT"))
        let path = kind == "order" ? "/order-service/health_check" : "/product-service/products?size=1"
        try await stack.run("kill \(kind)-2")
        for number in 1...60 {
            let answer = try await gateway.call(.GET, path)
            #expect(answer.status == 200, "request \(number) after \(kind)-2 was killed: \(answer.text)")
        }
        try await stack.run("start \(kind)-2")
        let before = try await Self.requests(stack, kind.uppercased(), 2)
        let began = ContinuousClock.now
        // Its own metrics are read on another port and route: more than a look's worth of requests must be the gateway's.
        try await until("\(kind)-2 is used again") {
            for _ in 1...10 {
                // A call that fails would only be asked again: here each one counts.
                let status = (try? await gateway.call(.GET, path))?.status
                #expect(status == 200)
            }
            return try await Self.requests(stack, kind.uppercased(), 2) >= before + 10
        }
        print("FAULT gateway: \(kind)-2 is used again \((ContinuousClock.now - began).text) after its start")
        gateway.close()
    }

    @Test func badInputHasTheErrorShapeAndChangesNothing() async throws {
        let stack = try Stack.current
        let addresses = try await stack.addresses()
        let gateway = try await Client(try stack.address("GATEWAY_PORT"))
        let product = try await stack.addProduct("Left alone", price: 1_000, stock: 10)
        let server = try await Client(try stack.address("PRODUCT_PORT"))
        let products = try PostgresConnection(configuration: PostgresConfiguration.patient(addresses.address("PRODUCT_DATABASE_URL")))
        let orders = try PostgresConnection(configuration: PostgresConfiguration.patient(addresses.address("ORDER_DATABASE_URL")))
        func books() async throws -> [Int64] {
            let stock = try await products.query(
                "SELECT (SELECT count(*) FROM product_stock), (SELECT sum(stock)::bigint FROM product_stock), (SELECT count(*) FROM stock_ledger)"
            ).one()
            let order = try await orders.query("SELECT count(*) FROM orders").one()
            return [
                try stock.decode(0, as: Int64.self), try stock.decode(1, as: Int64.self), try stock.decode(2, as: Int64.self),
                try order.decode(0, as: Int64.self),
            ]
        }
        let before = try await books()

        let order = "/order-service/orders"
        let valid = "{\"productId\":\(product),\"quantity\":1}"
        let padding = { (size: Int) in "{\"productId\":\(product),\"quantity\":1,\"note\":\"\(String(repeating: "x", count: size))\"}" }
        let cases: [(HTTPMethod, String, String?, Int, String)] = [
            (.POST, order, padding(2_000_000), 413, "PAYLOAD_TOO_LARGE"),
            (.POST, order, padding(100_000), 413, "PAYLOAD_TOO_LARGE"),
            (.POST, order, "{\"productId\":", 400, "VALIDATION_ERROR"),
            (.POST, order, "[]", 400, "VALIDATION_ERROR"),
            (.POST, order, "{\"productId\":\(product),\"quantity\":\"1\"}", 400, "VALIDATION_ERROR"),
            (.POST, order, "{\"productId\":\(product),\"quantity\":0}", 400, "VALIDATION_ERROR"),
            (.POST, order, "{\"productId\":\(product),\"quantity\":1,\"quantity\":2}", 400, "VALIDATION_ERROR"),
            (.POST, order, String(repeating: "[", count: 10_000), 400, "VALIDATION_ERROR"),
            (.POST, "/order-service/nothing/here/at/all", valid, 404, "NOT_FOUND"),
            (.POST, "/nothing", valid, 404, "NOT_FOUND"),
            (.POST, "/order-service/../product-service/products", valid, 404, "NOT_FOUND"),
            (.DELETE, order, nil, 405, "METHOD_NOT_ALLOWED"),
            (.GET, "/order-service/orders/abc", nil, 404, "ORDER_NOT_FOUND"),
            // What is not for buyers is not there, whether it would be valid or not.
            (.PATCH, "/product-service/products/\(product)/stock/decrease-by-order", "{\"orderId\":1,\"quantity\":1}", 404, "NOT_FOUND"),
            (.PATCH, "/product-service/v1/products/\(product)/stock", "{\"orderId\":1,\"quantity\":1}", 404, "NOT_FOUND"),
            (.POST, "/product-service/products", "{\"name\":\"New\",\"price\":1,\"stock\":1}", 404, "NOT_FOUND"),
            (.PATCH, "/product-service/products/\(product)", "{\"price\":1}", 404, "NOT_FOUND"),
            (.DELETE, "/product-service/products/\(product)", nil, 404, "NOT_FOUND"),
            (.GET, "/product-service/products/\(product)/stock/ledger", nil, 404, "NOT_FOUND"),
            (.GET, "/product-service/metrics", nil, 404, "NOT_FOUND"),
        ]
        let direct: [(HTTPMethod, String, String?, Int, String)] = [
            (.POST, "/products", padding(2_000_000), 413, "PAYLOAD_TOO_LARGE"),
            (.PATCH, "/products/\(product)/stock/decrease-by-order", "{\"orderId\":1,\"quantity\":1}", 400, "VALIDATION_ERROR"),
            (.POST, "/products", "{\"name\":\"\",\"price\":-1,\"stock\":1}", 400, "VALIDATION_ERROR"),
        ]
        for (client, method, path, body, status, code) in cases.map({ (gateway, $0.0, $0.1, $0.2, $0.3, $0.4) })
            + direct.map({ (server, $0.0, $0.1, $0.2, $0.3, $0.4) })
        {
            let answer = try await client.call(method, path, json: body)
            let what = "\(method) \(path) \(body?.prefix(60) ?? "")"
            #expect(answer.status == status, "\(what): \(answer.text.prefix(200))")
            #expect(answer.error == code, "\(what): \(answer.text.prefix(200))")
            #expect(answer.hasErrorShape, "\(what): \(answer.text.prefix(200))")
        }
        #expect(try await books() == before)
        await products.close()
        await orders.close()
        for client in [gateway, server] { client.close() }
    }
}
