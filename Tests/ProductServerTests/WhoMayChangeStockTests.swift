import HotPath
import NIOCore
import StrictJSON
import HTTPTypes
import Hummingbird
import ServerKit
import Testing

@testable import ProductServer

/// What the shop's services alone may do on the product server's public port.
@Suite struct WhoMayChangeStockTests {
    /// Every route of the public port, with a request of which nothing but the guard can be wrong for its caller.
    private static func isOpen(_ route: ServerRoute) -> Bool {
        let open = ["/livez", "/readyz", "/openapi.json", "/products", "/products/{id}", "/v1/products", "/v1/products/{id}"]
        return route.method == .get && open.contains(route.path.description)
    }

    /// Whether the guard let the caller of an open route in. A busy machine may not be ready, which is an answer too.
    private static func isLetIn(_ status: Int, _ path: String) -> Bool { status == 200 || path == "/readyz" && status == 503 }

    private static func path(_ route: ServerRoute, product: Int64) -> String {
        route.path.description.replacing("{id}", with: "\(product)").replacing("{key}", with: "DEC-1")
    }

    @Test func withTokensEveryRouteButReadingProductsAsksForOne() async throws {
        try await ProductServerFixture.with(["SERVICE_TOKENS": "order:5678,shop:9"]) { server in
            let made = try await server.ask(
                .post,
                "/products",
                #"{"name":"Keyboard","price":1,"stock":5}"#,
                headers: [.authorization: "Bearer 9"]
            )
            guard case .int(let product)? = made["id"] else { throw ProductServerFixture.Missing(what: "id in \(made.body)") }
            var guarded = 0
            for route in server.routes.publicRouter.routes {
                let path = Self.path(route, product: product)
                // A body that no route takes: who gets as far as this is told 400.
                let body = route.method == .get ? nil : "{"
                let (without, wrong) = (
                    try await server.ask(route.method, path, body),
                    try await server.ask(route.method, path, body, headers: [.authorization: "Bearer 567"])
                )
                if Self.isOpen(route) {
                    for answer in [without, wrong] {
                        #expect(Self.isLetIn(answer.status, path), "\(route.method) \(path): \(answer.body)")
                    }
                    #expect(Self.isLetIn(try await server.ask(.head, path).status, path), "HEAD \(path)")
                    continue
                }
                guarded += 1
                #expect(without.status == 401 && without.error == "UNAUTHORIZED", "\(route.method) \(path): \(without.body)")
                #expect(without.headers[.wwwAuthenticate] == "Bearer")
                #expect(wrong.status == 403 && wrong.error == "FORBIDDEN", "\(route.method) \(path): \(wrong.body)")
                for (name, secret) in [("order", "5678"), ("shop", "9")] where route.method != .delete {
                    let right = try await server.ask(route.method, path, body, headers: [.authorization: "Bearer \(secret)"])
                    #expect(![401, 403].contains(right.status), "\(name): \(route.method) \(path): \(right.body)")
                }
            }
            // POST, PATCH and DELETE of products, three changes of stock, requests and ledger, each under /v1 as well.
            #expect(guarded == 16)
            #expect(try await server.ask(.get, "/products/\(product)")["stock"] == .int(5))
        }
    }

    @Test func withoutTokensThisMachineAlone() async throws {
        try await ProductServerFixture.with { server in
            let product = try await server.addProduct(stock: 5)
            let forwarded = try #require(HTTPField.Name("X-Forwarded-For"))
            for headers in [[forwarded: "127.0.0.1"], [.origin: "http://evil.example"]] as [HTTPFields] {
                for route in server.routes.publicRouter.routes {
                    let path = Self.path(route, product: product)
                    let answer = try await server.ask(route.method, path, route.method == .get ? nil : "{", headers: headers)
                    if Self.isOpen(route) {
                        #expect(Self.isLetIn(answer.status, path), "\(route.method) \(path): \(answer.body)")
                    } else {
                        #expect(answer.status == 403 && answer.error == "FORBIDDEN", "\(route.method) \(path): \(answer.body)")
                    }
                }
            }
        }
    }

    /// What the way around the router does not admit goes to the router, which refuses it.
    @Test(arguments: [false, true]) func theWayAroundTheRouterIsForTheSame(hasTokens: Bool) async throws {
        try await ProductServerFixture.with(hasTokens ? ["SERVICE_TOKENS": "order:5678"] : [:]) { server in
            func admits(_ lines: String..., host: String = "127.0.0.1", isFromLoopback: Bool = true) throws -> [Bool] {
                try ["", "/v1"].map { version in
                    let head =
                        [
                            "PATCH \(version)/products/1/stock/decrease-by-order HTTP/1.1", "Host: \(host)", "Idempotency-Key: DEC-1",
                            "Content-Type: application/json",
                        ] + lines
                    guard case .head(var read) = RequestHead.read(ByteBuffer(string: head.joined(separator: "\r\n") + "\r\n\r\n")) else {
                        throw ProductServerFixture.Missing(what: "a head in \(head)")
                    }
                    read.isFromLoopback = isFromLoopback
                    return server.routes.hotPath.match(read) != nil
                }
            }
            let (yes, no) = ([true, true], [false, false])
            let answers = [
                (try admits(), hasTokens ? no : yes), (try admits(isFromLoopback: false), no), (try admits(host: "shop.example"), no),
                (try admits("X-Forwarded-For: 127.0.0.1"), no), (try admits("Origin: http://evil.example"), no),
                (try admits("Authorization: Bearer 567", isFromLoopback: false), no),
                (try admits("Authorization: Bearer 5678", host: "shop.example", isFromLoopback: false), hasTokens ? yes : no),
            ]
            for (index, (seen, expected)) in answers.enumerated() { #expect(seen == expected, "\(index)") }
        }
    }

    /// Reads, changes and streams: a page of another origin gets nothing of them, and nobody does without a token where one is set.
    @Test(arguments: [false, true]) func noAdminRouteIsForForeignPages(hasToken: Bool) async throws {
        try await ProductServerFixture.with(hasToken ? ["ADMIN_TOKEN": "ann:1234"] : [:]) { server in
            var headers = HTTPFields()
            headers[try #require(HTTPField.Name("Sec-Fetch-Site"))] = "cross-site"
            if hasToken { headers[.authorization] = "Bearer 1234" }
            let routes = server.routes.adminRouter.routes
            #expect(routes.count > 10 && routes.contains { $0.query.contains("follow") })
            for route in routes {
                let path = route.path.description.replacing("{id}", with: "1").replacing("{name}", with: "redisStock")
                    .replacing("{eventType}", with: "ERROR").replacing("{key}", with: "DEC-1")
                #expect(!path.contains("{"))
                // A stream that began would not end.
                for path in [path] + (route.query.contains("follow") ? [path + "?follow=true"] : []) {
                    let body = route.method == .get ? nil : "{"
                    let foreign = try await server.ask(route.method, path, body, headers: headers, admin: true)
                    #expect(foreign.status == 403 && foreign.error == "FORBIDDEN", "\(route.method) \(path): \(foreign.body)")
                    // The dashboard's page itself shows nothing; what it asks for needs the token.
                    guard hasToken, path != "/dashboard" else { continue }
                    let without = try await server.ask(route.method, path, body, admin: true)
                    #expect(without.status == 401 && without.error == "UNAUTHORIZED", "\(route.method) \(path): \(without.body)")
                }
            }
        }
    }

    /// The order server needs no token that opens the whole admin port.
    @Test func aServicesTokenOpensTheBatchRouteOfTheAdminPortAlone() async throws {
        try await ProductServerFixture.with(["SERVICE_TOKENS": "order:5678", "ADMIN_TOKEN": "ann:1234"]) { server in
            func status(_ method: HTTPRequest.Method, _ path: String, _ secret: String?) async throws -> Int {
                var headers = HTTPFields()
                headers[.authorization] = secret.map { "Bearer \($0)" }
                return try await server.ask(method, path, method == .post ? #"{"items":[]}"# : nil, headers: headers, admin: true).status
            }
            let (batch, metrics) = ("/internal/stock/batch", "/metrics")
            let found = [
                try await status(.post, batch, "5678"), try await status(.post, batch, "1234"), try await status(.post, batch, nil),
                try await status(.post, batch, "567"), try await status(.get, metrics, "5678"), try await status(.get, metrics, "1234"),
            ]
            // An empty batch is malformed.
            #expect(found == [400, 400, 401, 403, 403, 200])
        }
    }
}
