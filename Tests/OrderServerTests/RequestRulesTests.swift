import HTTPTypes
import Hummingbird
import Logging
import NIOHTTP1
import NIOPosix
import PostgresClient
import ServerKit
import StrictJSON
import Testing

@testable import OrderServer

/// The rules of requests, on every route of the server, and in front of the router.
@Suite("Rules of requests", .serialized, .timeLimit(.minutes(10)))
struct RequestRulesTests {
    /// A path of a template.
    private func path(_ route: ServerRoute) -> String {
        "/"
            + route.path.description.split(separator: "/").map { part in
                switch part {
                case "{id}": "1"
                case "{name}": "productServer"
                case "{eventType}": "ERROR"
                default: part.hasPrefix("{") ? "x" : String(part)
                }
            }.joined(separator: "/")
    }

    private func parts() throws -> OrderServerParts {
        var reader = SettingsReader(environment: [:])
        return try OrderServerParts(try OrderServerConfiguration(from: &reader), group: .singleton, logger: Logger(label: "test"))
    }

    @Test("every route refuses unknown and repeated query parameters, by name")
    func queries() async throws {
        let parts = try parts()
        try await TestBed.run { bed in
            for (routes, admin) in [(parts.publicRouter.routes, false), (parts.adminRouter.routes, true)] {
                for route in routes {
                    let path = path(route)
                    let method = HTTPMethod(rawValue: route.method.rawValue)
                    let answer = try await bed.send(method, path + "?surplus=1&p%5B=2", admin: admin)
                    #expect(answer.status == 400, "\(method) \(path): \(answer.json)")
                    #expect(answer["error"] == "VALIDATION_ERROR", "\(method) \(path): \(answer.json)")
                    #expect(
                        answer["details"]["field"] == "surplus" && answer["details"]["unknown"] == ["surplus", "p["],
                        "\(method) \(path)"
                    )
                    for name in route.query {
                        // Not one that a stream would begin with.
                        let value = name == "follow" ? 0 : 1
                        let twice = try await bed.send(method, path + "?\(name)=\(value)&\(name)=\(value)", admin: admin)
                        #expect(twice.status == 400 && twice["details"]["field"] == .string(name), "\(method) \(path): \(twice.json)")
                    }
                }
            }
            #expect(try await bed.count("select count(*) from orders") == 0)
        }
    }

    @Test(
        "no route of the admin port is for a page of another origin, nor for anybody without a token where one is set",
        arguments: [false, true]
    )
    func admins(hasToken: Bool) async throws {
        let routes = try parts().adminRouter.routes
        #expect(routes.count > 10 && routes.contains { $0.query.contains("follow") })
        try await TestBed.run(settings: hasToken ? ["ADMIN_TOKEN": "ann:1234"] : [:]) { bed in
            for route in routes {
                let method = HTTPMethod(rawValue: route.method.rawValue)
                let path = path(route)
                // A stream that began would not end.
                for path in [path] + (route.query.contains("follow") ? [path + "?follow=true"] : []) {
                    let body = route.method == .get ? nil : "{"
                    var headers: HTTPHeaders = ["sec-fetch-site": "cross-site"]
                    if hasToken { headers.add(name: "authorization", value: "Bearer 1234") }
                    let foreign = try await bed.send(method, path, body, headers: headers, admin: true)
                    #expect(foreign.status == 403 && foreign["error"] == "FORBIDDEN", "\(method) \(path): \(foreign.json)")
                    // The dashboard's page itself shows nothing; what it asks for needs the token.
                    guard hasToken, path != "/dashboard" else { continue }
                    let without = try await bed.send(method, path, body, admin: true)
                    #expect(without.status == 401 && without["error"] == "UNAUTHORIZED", "\(method) \(path): \(without.json)")
                }
            }
        }
    }

    @Test("no route takes a PATCH, whose unknown members it would have to refuse")
    func patches() throws {
        let parts = try parts()
        #expect((parts.publicRouter.routes + parts.adminRouter.routes).allSatisfy { $0.method != .patch })
    }

    @Test("the document has the routes' query parameters")
    func document() throws {
        let parts = try parts()
        let document = OpenAPIDocument(PackageResources.openapi_json)
        #expect(try document.queryParameterDifferences(of: parts.publicRouter.routes + parts.adminRouter.routes) == [])
        var reader = SettingsReader(environment: [:])
        struct Unused: Error {}
        let follower = OrderFollowerParts(try OrderServerConfiguration(from: &reader), logger: Logger(label: "test")) { _ in throw Unused()
        }
        #expect(try document.queryParameterDifferences(of: follower.publicRouter.routes + follower.adminRouter.routes) == [])
    }

    @Test("what each kind of route can answer stands in the document")
    func documentedAnswers() throws {
        let parts = try parts()
        let admin = Set(parts.adminRouter.routes.map(\.path.description))
        let missing = try OpenAPIDocument(PackageResources.openapi_json).missingResponses(
            of: parts.publicRouter.routes + parts.adminRouter.routes
        ) { route in
            route.method == .post && !["/cancel", "/retry", "/requeue"].contains { route.path.description.hasSuffix($0) }
        } more: { route in
            let path = route.path.description
            // The page itself shows nothing; what it asks for needs the token.
            var more = path == "/dashboard" ? [403] : admin.contains(path) ? [401, 403] : []
            let isOrders = path.contains("/orders")
            if isOrders || path.contains("/outbox") || path == "/readyz" { more.append(503) }
            if path.contains("{id}") || path.hasSuffix("circuitbreakers/{name}") { more.append(404) }
            if isOrders, route.method == .post {
                if path != "/v2/orders" { more.append(424) }
                if path.hasSuffix("/orders") { more.append(422) }
                if path.hasSuffix("/orders") && path != "/v2/orders" || path.hasSuffix("/retry") { more.append(409) }
            }
            return more
        }
        #expect(missing == [])
    }

    @Test("filters that do not exist are refused, empty ones are none")
    func filters() async throws {
        try await TestBed.run { bed in
            _ = try await bed.place()
            for (query, name) in [
                ("buyer=u-001", "buyer"), ("buyerID=u-001", "buyerID"), ("status=LOST", "status"), ("status=confirmed", "status"),
                ("buyerId=u-001&buyerId=u-002", "buyerId"), ("size=0", "size"), ("buyerId=%00", "buyerId"), ("buyerId=%FF", "buyerId"),
            ] {
                let answer = try await bed.send(.GET, "/orders?\(query)")
                #expect(answer.status == 400 && answer["details"]["field"] == .string(name), "\(query): \(answer.json)")
            }
            #expect(try await bed.send(.GET, "/orders?buyerId=&status=&page=&size=")["totalElements"] == 1)
            #expect(try await bed.send(.GET, "/orders?b%75yerId=u%2D001")["totalElements"] == 1)
            #expect(try await bed.send(.GET, "/u-001/orders?status=FAILED").status == 400)
        }
    }

    @Test("a path is decoded once: for its route, its user and its ids")
    func paths() async throws {
        try await TestBed.run { bed in
            let order = #"{"productId":"1","qty":1,"unitPrice":900}"#
            for user in ["%EA%B9%80", "a%2Fb", "a+b", "100%25", "%2541", "u%20v"] {
                #expect(try await bed.send(.POST, "/\(user)/orders", order).status == 201, "\(user)")
                guard case .array(let list) = try await bed.send(.GET, "/\(user)/%6Frders").json else {
                    throw TestBed.Failure(description: "no list of \(user)")
                }
                #expect(list.count == 1, "\(user)")
            }
            let buyers = try await bed.pool.query("select buyer_id from orders order by id").map { try $0.decode(0, as: String.self) }
            #expect(buyers == ["김", "a/b", "a+b", "100%", "%41", "u v"])
            #expect(try await bed.send(.GET, "/%6Frders/%31")["id"] == 1)
            #expect(try await bed.send(.GET, "/%761/orders/1")["id"] == 1)
            #expect(try await bed.send(.GET, "/orders/%30")["error"] == "ORDER_NOT_FOUND")
            #expect(try await bed.send(.GET, "/orders/1%2Fevents")["error"] == "ORDER_NOT_FOUND")
            for bad in ["/%00/orders", "/%7F/orders", "/%C2%85/orders", "/%FF/orders", "/%zz/orders", "/orders/%0"] {
                let answer = try await bed.send(.GET, bad)
                #expect(answer.status == 400 && answer["error"] == "VALIDATION_ERROR" && answer["details"]["field"] == "path", "\(bad)")
            }
        }
    }

    @Test("a key in quotes and the bare one are the same, in front of the router and behind it")
    func keys() async throws {
        try await TestBed.run { bed in
            let order = #"{"productId":1,"quantity":1}"#
            func send(_ path: String, _ keys: String...) async throws -> TestBed.Answer {
                try await bed.send(.POST, path, order, headers: HTTPHeaders(keys.map { ("idempotency-key", $0) }))
            }
            let first = try await send("/orders", "k")
            #expect(first["status"] == "CONFIRMED")
            // Spelled otherwise, the path is the router's.
            for path in ["/orders", "/v1/orders", "/%6Frders"] {
                for key in ["k", "\"k\""] {
                    let again = try await send(path, key)
                    #expect(again["id"] == first["id"] && again.headers.first(name: "idempotency-replayed") == "true", "\(path) \(key)")
                }
                for keys in [("k", "k"), ("k", "l"), ("\"k\"", "k")] {
                    let two = try await send(path, keys.0, keys.1)
                    #expect(two.status == 400 && two["details"]["field"] == "Idempotency-Key", "\(path) \(keys)")
                }
                for key in ["\"k", "\"k\"k", "\"k\";a=1", "\"\"", "\"\\k\""] {
                    #expect(try await send(path, key).status == 400, "\(path) \(key)")
                }
            }
            let comma = try await send("/orders", "a, b")
            #expect(comma["status"] == "CONFIRMED")
            #expect(try await send("/orders", "\"a, b\"")["id"] == comma["id"])
            #expect(try await bed.count("select count(*) from orders") == 2)
            let cancelled = try await bed.send(.POST, "/orders/1/cancel", headers: ["idempotency-key": "c"])
            #expect(cancelled["status"] == "CANCELLED")
            let repeated = try await bed.send(.POST, "/orders/1/cancel", headers: ["idempotency-key": "\"c\""])
            #expect(repeated.status == 200 && repeated.headers.first(name: "idempotency-replayed") == "true")
        }
    }
}
