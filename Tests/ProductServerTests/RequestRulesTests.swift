import APIErrors
import HotPath
import HTTPTypes
import Hummingbird
import Logging
import NIOCore
import NIOPosix
import PostgresClient
import ServerKit
import ServiceLifecycle
import PrivateServers
import StrictJSON
import Testing

@testable import ProductServer

/// The rules of requests, on every route of the server, and in front of the router.
@Suite(.serialized, .timeLimit(.minutes(10)))
struct RequestRulesTests {
    /// A path of a template.
    private func path(_ route: ServerRoute) -> String {
        "/"
            + route.path.description.split(separator: "/").map { part in
                switch part {
                case "{id}": "1"
                case "{name}": "redisStock"
                case "{eventType}": "ERROR"
                default: part.hasPrefix("{") ? "x" : String(part)
                }
            }.joined(separator: "/")
    }

    private func field(_ answer: ProductServerFixture.Answer) -> JSONValue? { answer["details"]?["field"] }

    @Test func everyRouteRefusesUnknownAndRepeatedQueryParameters() async throws {
        try await ProductServerFixture.with { server in
            for (router, admin) in [(server.routes.publicRouter, false), (server.routes.adminRouter, true)] {
                for route in router.routes {
                    let path = path(route)
                    for method in route.method == .get ? [.get, .head] : [route.method] {
                        let answer = try await server.ask(method, path + "?surplus=1&p%5B=2", admin: admin)
                        #expect(answer.status == 400, "\(method) \(path): \(answer.body)")
                        guard method != .head else { continue }
                        #expect(answer.error == "VALIDATION_ERROR" && field(answer) == "surplus", "\(method) \(path): \(answer.body)")
                        #expect(answer["details"]?["unknown"] == ["surplus", "p["], "\(path)")
                    }
                    for name in route.query {
                        // Not one that a stream would begin with.
                        let value = name == "follow" ? 0 : 1
                        let answer = try await server.ask(route.method, path + "?\(name)=\(value)&\(name)=\(value)", admin: admin)
                        #expect(answer.status == 400 && field(answer) == .string(name), "\(path): \(answer.body)")
                    }
                }
            }
        }
    }

    @Test func everyPatchRefusesUnknownMembers() async throws {
        try await ProductServerFixture.with { server in
            _ = try await server.addProduct(stock: 10)
            let routes = server.routes.publicRouter.routes + server.routes.adminRouter.routes
            let patches = routes.filter { $0.method == .patch }
            #expect(patches.count == 8)
            for route in patches {
                for key in ["DEC-1", "INC-1"] where !route.path.description.contains(key == "DEC-1" ? "increase" : "decrease") {
                    let body = #"{"orderId":1,"quantity":1,"name":"a","surplus":null}"#
                    let answer = try await server.ask(.patch, path(route), body, key: key)
                    #expect(answer.status == 400 && answer.error == "VALIDATION_ERROR", "\(route.path): \(answer.body)")
                    guard case .array(let unknown)? = answer["details"]?["unknown"] else {
                        Issue.record("\(route.path): \(answer.body)")
                        continue
                    }
                    #expect(unknown.contains("surplus"), "\(route.path): \(answer.body)")
                }
            }
            // Nothing of them was done, in part or whole.
            let audit = try await server.ask(.get, "/admin/audit/products/1", admin: true)
            #expect(audit["sold"] == 0 && audit["databaseStock"] == 10)
            #expect(try await server.ask(.get, "/products/1")["name"] == "Keyboard")

            let stock = try await server.ask(.patch, "/products/1", #"{"stock":1000,"price":5}"#)
            #expect(stock.status == 400 && field(stock) == "stock")
            #expect(stock["details"]?["known"] == ["name", "price", "status", "stockStrategy"])
            #expect(try await server.ask(.get, "/products/1")["price"] == 39_000)
            let nothing = try await server.ask(.patch, "/products/1", "{}")
            #expect(nothing.status == 400 && nothing["details"]?["known"] == ["name", "price", "status", "stockStrategy"])
            // What the one knows is unknown to the other.
            let buyer = try await server.ask(.patch, "/products/1/stock", #"{"orderId":1,"quantity":1,"buyerId":"a"}"#, key: "INC-1")
            #expect(field(buyer) == "buyerId")
            let reason = try await server.ask(.patch, "/products/1/stock", #"{"orderId":1,"quantity":1,"reason":"a"}"#, key: "DEC-1")
            #expect(field(reason) == "reason")
        }
    }

    @Test func theDocumentHasTheRoutesQueryParametersAndPatchMembers() async throws {
        try await ProductServerFixture.with { server in
            let document = OpenAPIDocument(ProductServer.openAPI)
            let routes = server.routes.publicRouter.routes + server.routes.adminRouter.routes
            #expect(try document.queryParameterDifferences(of: routes) == [])
            let json = try JSONDocument(ProductServer.openAPI).value
            for route in routes where route.method == .patch {
                let content = json["paths"]?[route.path.description]?["patch"]?["requestBody"]?["content"]
                guard case .string(let reference)? = content?["application/json"]?["schema"]?["$ref"],
                    let name = reference.split(separator: "/").last,
                    let schema = json["components"]?["schemas"]?[String(name)]
                else {
                    Issue.record("no schema of \(route.path)")
                    continue
                }
                #expect(schema["additionalProperties"] == false, "\(route.path)")
            }
        }
    }

    /// What each kind of route can answer stands in the document.
    @Test func theDocumentHasTheAnswersOfEachKindOfRoute() async throws {
        try await ProductServerFixture.with { server in
            let document = OpenAPIDocument(ProductServer.openAPI)
            let routes = (open: server.routes.publicRouter.routes, admin: server.routes.adminRouter.routes)
            let admin = Set(routes.admin.map(\.path.description))
            let missing = try document.missingResponses(of: routes.open + routes.admin) { route in
                [.post, .patch].contains(route.method) && !route.path.description.hasSuffix("/load-stock-redis")
            } more: { route in
                let path = route.path.description
                let isOpen =
                    route.method == .get
                    && ["/livez", "/readyz", "/openapi.json", "/products", "/products/{id}", "/v1/products", "/v1/products/{id}"].contains(
                        path
                    )
                // The page itself shows nothing; what it asks for needs the token.
                var more = path == "/dashboard" ? [403] : isOpen && !admin.contains(path) ? [] : [401, 403]
                if path.contains("/products") { more.append(503) }
                if path.contains("{id}") || path.hasSuffix("circuitbreakers/{name}") { more.append(404) }
                if path.contains("/stock") && route.method == .patch { more += [409, 422] }
                if path.hasSuffix("/stock-adjustments") || path.hasSuffix("/products") && route.method == .post { more.append(422) }
                return more
            }
            #expect(missing == [])
        }
    }

    @Test func theDocumentSaysWhatTheActuatorAnswers() async throws {
        try await ProductServerFixture.with { server in
            let schemas = try JSONDocument(ProductServer.openAPI).value["components"]?["schemas"]
            for (path, name) in [("/actuator", "ActuatorCircuitBreaker"), ("/admin", "CircuitBreaker")] {
                let answer = try await server.ask(.get, path + "/circuitbreakers", admin: true)
                guard case .object(let members)? = answer["circuitBreakers"]?["redisStock"],
                    case .object(let documented)? = schemas?[name]?["properties"]
                else {
                    Issue.record("\(answer.body)")
                    continue
                }
                #expect(members.map(\.name).sorted() == documented.map(\.name).sorted(), "\(path)")
            }
        }
    }

    @Test func filtersThatDoNotExistAreNoFilters() async throws {
        try await ProductServerFixture.with { server in
            _ = try await server.addProduct(stock: 10)
            for (query, name) in [
                ("status=LOST", "status"), ("state=ACTIVE", "state"), ("code=A", "code"), ("sort=name", "sort"), ("page=x", "page"),
            ] {
                let answer = try await server.ask(.get, "/products?\(query)")
                #expect(answer.status == 400 && field(answer) == .string(name), "\(query): \(answer.body)")
            }
            #expect(try await server.ask(.get, "/products?query=&status=&page=0&size=20")["totalElements"] == 1)
            for path in ["/admin/circuitbreakerevents", "/actuator/circuitbreakerevents"] {
                #expect(try await server.ask(.get, path + "?follow=perhaps", admin: true).status == 400)
                #expect(try await server.ask(.get, path + "?follow=false", admin: true).status == 200)
            }
            #expect(try await server.ask(.get, "/readyz?verbose").body.contains("dependencies"))
            #expect(try await !server.ask(.get, "/readyz?verbose=false").body.contains("dependencies"))
            #expect(try await server.ask(.get, "/readyz?verbos").status == 400)
        }
    }

    @Test func committedKeysAreFoundHoweverTheyAreWritten() async throws {
        try await ProductServerFixture.with { server in
            let id = try await server.addProduct(stock: 10)
            let key = #"DEC-a:b/c?"d"+ %41\"#
            let made = try await server.ask(.patch, "/products/\(id)/stock/decrease-by-order", #"{"orderId":1,"quantity":1}"#, key: key)
            #expect(made.status == 200, "\(made.body)")
            let quoted = #""DEC-a:b/c?\"d\"+ %41\\""#
            let replay = try await server.ask(
                .patch,
                "/products/\(id)/stock/decrease-by-order",
                #"{"orderId":1,"quantity":1}"#,
                key: quoted
            )
            #expect(replay.status == 200 && replay.headers[.idempotencyReplayed] == "true" && replay["remainingStock"] == 9)
            for spelled in [
                "DEC-a%3Ab%2Fc%3F%22d%22+%20%2541%5C", "%44%45%43%2D%61%3A%62%2F%63%3F%22%64%22%2B%20%25%34%31%5C",
                "%22DEC-a:b%2Fc%3F%5C%22d%5C%22+%20%2541%5C%5C%22",
            ] {
                for version in ["", "/v1"] {
                    let found = try await server.ask(.get, "\(version)/products/\(id)/stock/requests/\(spelled)")
                    #expect(found.status == 200 && found["remainingStock"] == 9, "\(spelled): \(found.body)")
                }
            }
            for other in ["DEC-a%3Ab%2Fc%3F%22d%22%20%20%2541%5C", "DEC-a%3Ab", "DEC-a%253Ab%2Fc%3F%22d%22+%20%2541%5C", "%E2%82%AC"] {
                #expect(try await server.ask(.get, "/products/\(id)/stock/requests/\(other)").status == 404, "\(other)")
            }
            #expect(try await server.ask(.get, "/products/\(id)/stock/requests/DEC-%00").status == 400)
            #expect(try await server.ask(.get, "/%70roducts/%3\(id)").status == 200)
            #expect(try await server.ask(.get, "/admin/audit%2Fproducts/\(id)", admin: true).status == 404)
            #expect(try await server.ask(.get, "/%61dmin/audit/products/\(id)", admin: true)["sold"] == 1)
        }
    }

    @Test func aDatabaseThatIsAwayIsNoFaultOfTheServer() async throws {
        try await ProductServerFixture.with { server in
            let id = try await server.addProduct(stock: 10)
            server.postgres.stop()
            let body = #"{"name":"Keyboard","price":1,"stock":1}"#
            for (method, path, body, admin) in [
                (.get, "/products/\(id)", nil, false), (.get, "/products", nil, false), (.post, "/products", body, false),
                (.patch, "/products/\(id)", #"{"price":1}"#, false), (.delete, "/products/\(id)", nil, false),
                (.get, "/products/\(id)/stock/requests/DEC-1", nil, false), (.get, "/products/\(id)/stock/ledger", nil, false),
                (.get, "/admin/audit/products/\(id)", nil, true), (.post, "/admin/products/\(id)/load-stock-redis", nil, true),
                (.post, "/admin/products/\(id)/stock-adjustments", #"{"quantity":1}"#, true),
            ] as [(HTTPRequest.Method, String, String?, Bool)] {
                let answer = try await server.ask(method, path, body, key: method == .post ? "k" : nil, admin: admin)
                #expect(answer.status == 503 && answer.error == "UNAVAILABLE", "\(method) \(path): \(answer.body)")
                #expect(answer.headers[.retryAfter] == "1")
            }
        }
    }

    @Test(
        arguments: [
            (.poolExhausted, nil, "OVERLOADED"), (.connectFailed, nil, "UNAVAILABLE"),
            (.connectionLost(outcomeUnknown: true), nil, "UNAVAILABLE"),
            (.timedOut(outcomeUnknown: true), nil, "UNAVAILABLE"), (.shutDown, nil, "UNAVAILABLE"), (.cancelled, nil, "UNAVAILABLE"),
            (.server(sqlState: "55P03"), "55P03", "LOCK_TIMEOUT"), (.server(sqlState: "57014"), "57014", "UNAVAILABLE"),
            (.server(sqlState: "40P01"), "40P01", "UNAVAILABLE"), (.server(sqlState: "42501"), "42501", "UNAVAILABLE"),
            (.server(sqlState: "42883"), "42883", "UNAVAILABLE"), (.server(sqlState: "54000"), "54000", "UNAVAILABLE"),
            (.server(sqlState: "XX001"), "XX001", "UNAVAILABLE"), (.server(sqlState: "42601"), "42601", nil), (.decoding, nil, nil),
            (.misuse, nil, nil),
        ] as [(PostgresError.Code, String?, String?)]
    )
    func troubleOfTheDatabase(code: PostgresError.Code, sqlState: String?, answer: String?) {
        #expect(APIError(PostgresError(code: code, message: "", sqlState: sqlState))?.code.rawValue == answer)
    }

    /// The rest of the message behind a head.
    private struct Answer: Equatable, CustomStringConvertible {
        var status: String
        var replayed: Bool
        var contentType: String?
        var body: String
        var description: String { "\(status) \(contentType ?? "-") replayed: \(replayed) \(body)" }
    }

    /// Sends one request and reads one answer. Bounded by a minute.
    private func exchange(_ port: Int, _ request: String) async throws -> Answer {
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton).connect(host: "127.0.0.1", port: port) {
            channel in
            channel.eventLoop.makeCompletedFuture {
                try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
            }
        }
        let deadline = channel.channel.eventLoop.scheduleTask(in: .seconds(60)) { channel.channel.close(promise: nil) }
        defer { deadline.cancel() }
        return try await channel.executeThenClose { inbound, outbound in
            try await outbound.write(ByteBuffer(string: request))
            var text = ""
            for try await part in inbound {
                text += String(buffer: part)
                let parts = text.split(separator: "\r\n\r\n", maxSplits: 1, omittingEmptySubsequences: false)
                guard parts.count == 2 else { continue }
                var fields: [String: String] = [:]
                let lines = parts[0].split(separator: "\r\n")
                for line in lines.dropFirst() {
                    let field = line.split(separator: ":", maxSplits: 1)
                    fields[field[0].lowercased()] = field.count == 2 ? String(field[1].drop { $0 == " " }) : ""
                }
                if let length = fields["content-length"].flatMap({ Int($0) }), parts[1].utf8.count < length { continue }
                return Answer(
                    status: lines.first.map { String($0.split(separator: " ")[1]) } ?? "",
                    replayed: fields["idempotency-replayed"] == "true",
                    contentType: fields["content-type"],
                    body: String(parts[1])
                )
            }
            throw ProductServerFixture.Missing(what: "an answer to \(request): \(text)")
        }
    }

    /// The route has a way around the router. Spelled otherwise, its path is the router's, which must give the same answer.
    @Test func theWayAroundTheRouterAnswersAsTheRouterDoes() async throws {
        try await withServer { try await compare($0) }
    }

    @Test func theWayAroundTheRouterAsksForATokenWhereTheRouterDoes() async throws {
        try await withServer(["SERVICE_TOKENS": "order:5678,shop:9"]) { try await compareTokens($0) }
    }

    /// Runs a product server as its program does, and gives its public port.
    private func withServer(_ more: [String: String] = [:], _ test: (Int) async throws -> Void) async throws {
        let postgres = try PrivatePostgres.start(fsync: false)
        defer { postgres.stop() }
        let redis = try PrivateRedis.start(options: ["--save", ""])
        defer { redis.stop() }
        let own = [
            "REDIS_URL": redis.url, "PRODUCT_DATABASE_URL": postgres.url, "PRODUCT_PORT": "0", "PRODUCT_ADMIN_PORT": "0",
            "LOG_LEVEL": "critical",
        ]
        var reader = SettingsReader(environment: own.merging(more) { $1 })
        let settings = try ProductServerConfiguration(from: &reader)
        let (ports, found) = AsyncStream.makeStream(of: ServerAssembly.Ports.self)
        let run = Run {
            defer { found.finish() }
            try await ProductServer.run(settings) { found.yield($0) }
        }
        let group = ServiceGroup(services: [run], logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        let task = Task { try await group.run() }
        for await port in ports {
            do {
                try await test(port.publicPort)
            } catch {
                Issue.record(error)
            }
            break
        }
        await group.triggerGracefulShutdown()
        try await task.value
    }

    /// Lets a server be stopped from within the process.
    private struct Run: Service {
        let body: @Sendable () async throws -> Void
        func run() async throws { try await body() }
    }

    private func compare(_ port: Int) async throws {
        let product = #"{"name":"Keyboard","price":1,"stock":1000,"stockStrategy":"REDIS_FIRST"}"#
        let made = try await exchange(port, request("POST /products", "", product))
        #expect(made.status == "200", "\(made)")
        let sold = #"{"orderId":1,"quantity":2,"buyerId":"u-1"}"#
        let key = "Idempotency-Key: "
        let first = try await exchange(port, request("PATCH /products/1/stock/decrease-by-order", key + "DEC-1\r\n", sold))
        #expect(first.status == "200" && !first.replayed, "\(first)")
        // Each is sent both ways; none changes anything.
        let cases: [(String, String, status: String)] = [
            (key + "DEC-1\r\n", sold, "200"), (key + "\"DEC-1\"\r\n", sold, "200"), (key + "\"DEC\\-1\"\r\n", sold, "400"),
            (key + "\"DEC-1\r\n", sold, "400"), (key + "\"DEC-1\";a=1\r\n", sold, "400"), (key + "\"INC-1\"\r\n", sold, "400"),
            (key + "DEC-1\r\n" + key + "DEC-1\r\n", sold, "400"), (key + "DEC-1\r\n" + key + "DEC-2\r\n", sold, "400"),
            ("", sold, "400"), (key + "\r\n", sold, "400"),
            (key + "DEC-1\r\nIdempotency-Attempt: 2\r\n", sold, "200"), (key + "DEC-1\r\nIdempotency-Attempt: 0\r\n", sold, "400"),
            (key + "DEC-1\r\nIdempotency-Attempt: 1\r\nIdempotency-Attempt: 1\r\n", sold, "400"),
            (key + "DEC-1\r\n", #"{"orderId":1,"quantity":2,"surplus":1}"#, "400"),
            (key + "DEC-1\r\n", #"{"orderId":1,"quantity":2,"reason":"a","stock":null}"#, "400"),
            (key + "DEC-1\r\n", #"{"orderId":1,"quantity":2,"buyerId":""}"#, "400"),
            (key + "DEC-1\r\n", #"{"orderId":1,"quantity":2,"quantity":2}"#, "400"), (key + "DEC-1\r\n", "{", "400"),
            (key + "DEC-1\r\n", #"{"orderId":1,"quantity":3}"#, "422"), (key + "DEC-2\r\n", #"{"orderId":2,"quantity":1001}"#, "400"),
            (key + "DEC-1\r\nAccept: application/problem+json\r\nAccept-Language: ko\r\n", "[]", "400"),
        ]
        for (fields, body, status) in cases {
            let hot = try await exchange(port, request("PATCH /products/1/stock/decrease-by-order", fields, body))
            let routed = try await exchange(port, request("PATCH /%70roducts/1/stock/decrease-by-order", fields, body))
            #expect(hot == routed, "\(fields)\(body)")
            #expect(hot.status == status, "\(fields)\(body): \(hot)")
        }
        // Nobody who comes from elsewhere, through a proxy or from a foreign page changes stock.
        for field in [
            "X-Forwarded-For: 127.0.0.1", "Forwarded: for=127.0.0.1", "Origin: http://evil.example", "Sec-Fetch-Site: cross-site",
            "Sec-Fetch-Site: same-site", "Origin: null",
        ] {
            let fields = key + "DEC-3\r\n" + field + "\r\n"
            try await bothWays(port, fields, #"{"orderId":3,"quantity":1}"#, status: "403")
        }
        let named = request("PATCH /products/1/stock/decrease-by-order", key + "DEC-3\r\n", #"{"orderId":3,"quantity":1}"#)
        let foreign = try await exchange(port, named.replacing("Host: localhost", with: "Host: shop.example"))
        #expect(foreign.status == "403", "\(foreign)")
        let requests = try await exchange(port, "GET /products/1/stock/requests/DEC-3 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        #expect(requests.status == "404", "nothing was done: \(requests)")
        for path in [
            "/products/1/stock/decrease-by-order?a=b", "/products/%00/stock/decrease-by-order", "/products/1/stock/decrease-by-order?",
        ] {
            let answer = try await exchange(port, request("PATCH \(path)", key + "DEC-1\r\n", sold))
            #expect(answer.status == (path.hasSuffix("?") ? "200" : "400"), "\(path): \(answer)")
        }
    }

    private func compareTokens(_ port: Int) async throws {
        func token(_ secret: String) -> String { "Authorization: Bearer \(secret)\r\n" }
        let product = #"{"name":"Keyboard","price":1,"stock":1000,"stockStrategy":"REDIS_FIRST"}"#
        let made = try await exchange(port, request("POST /products", token("9"), product))
        #expect(made.status == "200", "\(made)")
        let key = "Idempotency-Key: DEC-1\r\n"
        let body = #"{"orderId":1,"quantity":2,"buyerId":"u-1"}"#
        try await bothWays(port, key, body, status: "401")
        for fields in [token("567"), token("56789")] { try await bothWays(port, key + fields, body, status: "403") }
        try await bothWays(port, key + "Authorization: Basic NTY3OA==\r\n", body, status: "401")
        try await bothWays(port, key + token(""), body, status: "401")
        let shown = try await exchange(
            port,
            "GET /products/1/stock/requests/DEC-1 HTTP/1.1\r\nHost: localhost\r\n\(token("9"))\r\n"
        )
        #expect(shown.status == "404", "nothing was done: \(shown)")
        let first = try await exchange(port, request("PATCH /products/1/stock/decrease-by-order", key + token("5678"), body))
        #expect(first.status == "200" && !first.replayed, "\(first)")
        for secret in ["5678", "9"] {
            // Who shows a token may come from anywhere.
            for more in ["", "X-Forwarded-For: 10.0.0.1\r\n"] {
                try await bothWays(port, key + token(secret) + more, body, status: "200")
            }
        }
    }

    /// Sends a decrease around the router and through it.
    private func bothWays(_ port: Int, _ fields: String, _ body: String, status: String) async throws {
        let hot = try await exchange(port, request("PATCH /products/1/stock/decrease-by-order", fields, body))
        let routed = try await exchange(port, request("PATCH /%70roducts/1/stock/decrease-by-order", fields, body))
        #expect(hot == routed, "\(fields)")
        #expect(hot.status == status, "\(fields): \(hot)")
    }

    private func request(_ line: String, _ fields: String, _ body: String) -> String {
        "\(line) HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\(fields)Content-Length: \(body.utf8.count)\r\n\r\n\(body)"
    }
}
