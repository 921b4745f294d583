import FlashSaleKit
import Foundation
import NIOCore
import NIOHTTP1
import Testing

extension Faults {
    /// The gateway in front of stand-ins: what passes it, what it makes of odd requests, and that nobody's request harms another's.
    @Suite(
        "The gateway alone",
        .serialized,
        // Four seconds where a shop has a minute, which a busy machine's stand-ins keep, and 40 where it has 2,048.
        .gatewayAlone(["GATEWAY_READ_TIMEOUT": "4s", "GATEWAY_CONNECTIONS_PER_ADDRESS": "40"]),
        .timeLimit(.minutes(10))
    )
    struct GatewayAlone {}

    /// Few connections an address, and requests that may wait for as long as a test takes to send so many.
    @Suite(
        "The gateway with a low bound",
        .serialized,
        .gatewayAlone(["GATEWAY_READ_TIMEOUT": "600s", "GATEWAY_CONNECTIONS_PER_ADDRESS": "40"]),
        .timeLimit(.minutes(10))
    )
    struct GatewayWithALowBound {}

    /// The same with the stock routes open.
    @Suite("The gateway with public stock", .serialized, .gatewayAlone(["GATEWAY_PUBLIC_STOCK": "true"]), .timeLimit(.minutes(10)))
    struct GatewayWithPublicStock {}
}

extension Faults {
    /// Real servers behind a gateway with the stock routes open.
    @Suite(
        "Public stock",
        .serialized,
        .stack(instances: 1, ["GATEWAY_PUBLIC_STOCK": "true", "ORDER_DEADLINE": "15s", "PRODUCT_TIMEOUT": "10s", "RECOVERY_AGE": "20s"]),
        .timeLimit(.minutes(10))
    )
    struct PublicStock {
        @Test func stockIsChangedThroughTheGatewayAndByServicesAlone() async throws {
            let stack = try Stack.current
            let gateway = try await Client(stack.address("GATEWAY_PORT"))
            let server = try await Client(stack.address("PRODUCT_PORT"))
            defer { for client in [gateway, server] { client.close() } }
            let made = try await gateway.call(
                .POST,
                "/product-service/products",
                json: "{\"name\":\"Open\",\"price\":1000,\"stock\":10,\"stockStrategy\":\"REDIS_FIRST\"}"
            )
            let product = try #require(made.id, "\(made.text)")
            let key = [("Idempotency-Key", "DEC-900001")]
            let decrease = "/products/\(product)/stock/decrease-by-order"
            let decreased = try await gateway.call(
                .PATCH,
                "/product-service" + decrease,
                json: "{\"orderId\":900001,\"quantity\":2}",
                headers: key
            )
            #expect(decreased.status == 200, "\(decreased.text)")
            // The order server has a token of its own.
            let order = try await gateway.call(.POST, "/order-service/orders", json: "{\"productId\":\(product),\"quantity\":3}")
            #expect(order.json["status"] as? String == "CONFIRMED", "\(order.text)")
            let ledger = try await gateway.call(.GET, "/product-service/products/\(product)/stock/ledger")
            #expect(ledger.json["totalElements"] as? Int == 2, "\(ledger.text)")
            // On its own port the server asks whoever comes.
            let token = try await stack.addresses().address("PRODUCT_SERVICE_TOKEN")
            for (headers, status) in [([], 401), ([("Authorization", "Bearer x")], 403), ([("Authorization", "Bearer \(token)")], 200)] {
                let answer = try await server.call(.GET, "/products/\(product)/stock/ledger", headers: headers)
                #expect(answer.status == status && (status == 200 || answer.hasErrorShape), "\(answer.text)")
            }
            #expect(try await server.call(.GET, "/products/\(product)").json["stock"] as? Int == 5)
        }
    }
}

/// A stack whose servers are stand-ins.
private func gateway() throws -> (stack: Stack, standIns: StandIns, address: String) {
    let stack = try Stack.current
    guard let standIns = stack.standIns else { throw SystemFailure(description: "this suite has no stand-ins") }
    return (stack, standIns, try stack.address("GATEWAY_PORT"))
}

/// An answer of raw bytes: its status, 0 without a status line, its head in lower case, and its body.
private struct RawAnswer {
    var status = 0
    var head = ""
    var body: String

    init(_ text: String) {
        var rest = text[...]
        if rest.hasPrefix("HTTP/1.1 100 "), let end = rest.firstRange(of: "\r\n\r\n") { rest = rest[end.upperBound...] }
        guard rest.hasPrefix("HTTP/1."), let end = rest.firstRange(of: "\r\n\r\n") else {
            body = String(rest)
            return
        }
        status = Int(rest.split(separator: " ").dropFirst().first ?? "") ?? 0
        head = rest[..<end.lowerBound].lowercased()
        body = String(rest[end.upperBound...])
    }

    func count(_ field: String) -> Int { head.split(separator: "\r\n").count { $0.hasPrefix(field + ":") } }

    /// The error's code, if the body is the one shape and nothing else.
    var error: String? {
        guard let object = try? JSONSerialization.jsonObject(with: Data(body.utf8)) as? [String: Any],
            Set(object.keys) == ["error", "message", "details"], object["message"] is String
        else { return nil }
        return object["error"] as? String
    }
}

private func exchange(_ address: String, _ bytes: String) async throws -> RawAnswer {
    let connection = try await RawConnection(address)
    defer { connection.close() }
    // One byte a character: also those that are no UTF-8.
    try await connection.send(bytes.unicodeScalars.map { UInt8(truncatingIfNeeded: $0.value) })
    return RawAnswer(try await connection.answer())
}

private func request(_ method: String, _ target: String, _ fields: String = "") -> String {
    "\(method) \(target) HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\(fields)\r\n"
}

extension Faults.TwoInstances {
    @Test func oddRequestsHarmNobodyElse() async throws {
        let stack = try Stack.current
        let product = try await stack.addProduct("Clean", price: 1_000, stock: 100_000)
        let order = try await Client(try stack.address("ORDER_PORT"))
        defer { order.close() }
        let body = "{\"productId\":\(product),\"quantity\":1}"
        let id = try #require(try await order.call(.POST, "/orders", json: body).id)
        let post =
            request("POST", "/order-service/orders", "Content-Type: application/json\r\nContent-Length: \(body.utf8.count)\r\n") + body
        let clean = [request("GET", "/order-service/orders/\(id)"), post, request("GET", "/product-service/products/\(product)")]
        try await Faults.GatewayAlone.harmNobody(try stack.address("GATEWAY_PORT"), clean: clean, judges: false)
    }
}

extension Faults.GatewayAlone {
    /// Method, target, and the path that a server must see.
    static let passed: [(String, String, String)] = [
        ("GET", "/product-service/products", "/products"), ("HEAD", "/product-service/products", "/products"),
        ("GET", "/product-service/v1/products?query=a%20b&page=1", "/v1/products?query=a%20b&page=1"),
        ("GET", "/product-service/products/7", "/products/7"),
        ("GET", "/product-service/v1/products/CAT.A-log_2", "/v1/products/CAT.A-log_2"),
        ("GET", "/product-service/products/%43AT", "/products/%43AT"), ("GET", "/product-service/livez", "/livez"),
        ("GET", "/product-service/readyz", "/readyz"), ("GET", "/product-service/readyz?verbose", "/readyz"),
        ("POST", "/order-service/orders", "/orders"), ("POST", "/order-service/v1/orders", "/v1/orders"),
        ("POST", "/order-service/v2/orders", "/v2/orders"),
        ("GET", "/order-service/orders?status=PENDING", "/orders?status=PENDING"), ("GET", "/order-service/v1/orders", "/v1/orders"),
        ("GET", "/order-service/orders/7", "/orders/7"), ("HEAD", "/order-service/orders/7", "/orders/7"),
        ("GET", "/order-service/orders/7?wait=30s", "/orders/7?wait=30s"),
        ("GET", "/order-service/v1/orders/7/events", "/v1/orders/7/events"),
        ("POST", "/order-service/orders/7/cancel", "/orders/7/cancel"),
        ("POST", "/order-service/v1/orders/7/cancel", "/v1/orders/7/cancel"),
        ("GET", "/order-service/u-1/orders", "/u-1/orders"), ("POST", "/order-service/u-1/orders", "/u-1/orders"),
        // Users, whatever they are called.
        ("GET", "/order-service/admin/orders", "/admin/orders"), ("GET", "/order-service/internal/orders", "/internal/orders"),
        ("GET", "/order-service/v2/orders", "/v2/orders"), ("GET", "/order-service/%EA%B9%80/orders", "/%EA%B9%80/orders"),
        ("GET", "/order-service/a%2Fb/orders?x=%20y", "/a%2Fb/orders?x=%20y"),
        ("GET", "/order-service/a;b=c@d:e/orders", "/a;b=c@d:e/orders"),
        ("GET", "/order-service/health_check", "/health_check"), ("GET", "/order-service/livez", "/livez"),
        ("GET", "/order-service/readyz", "/readyz"),
        ("GET", "/order-service/openapi.json", "/openapi.json"),
        // Of an absolute target the path counts.
        ("GET", "http://other.example/order-service/orders/7", "/orders/7"),
        ("GET", "https://other.example:99/product-service/products", "/products"),
    ]

    @Test func whatBuyersNeedIsPassed() async throws {
        let (_, standIns, address) = try gateway()
        for (method, target, path) in Self.passed {
            let before = standIns.seen.count
            let answer = try await exchange(address, request(method, target))
            #expect(answer.status == 200, "\(method) \(target): \(answer)")
            #expect(answer.count("x-request-id") == 1, "\(method) \(target): \(answer.head)")
            let seen = standIns.seen.dropFirst(before)
            #expect(seen.map(\.path) == [path] && seen.first?.method == method, "\(method) \(target): \(seen)")
            #expect(seen.first?.server.hasPrefix(target.contains("/product-service/") ? "PRODUCT" : "ORDER") == true, "\(method) \(target)")
        }
    }

    /// Paths that no server may get to see, in every way that one of them could be written.
    static var closed: [String] {
        let stock = ["stock", "stock/decrease-by-order", "stock/increase-by-order", "stock/ledger", "stock/requests/DEC-1"]
        var plain = stock.flatMap { ["/product-service/products/1/\($0)", "/product-service/v1/products/1/\($0)"] }
        for service in ["product-service", "order-service"] {
            plain += [
                "metrics", "dashboard", "admin/circuitbreakers", "admin/products/1/stock-adjustments", "admin/audit/products/1",
                "internal/stock/batch",
                "internal/orders/1/retry", "internal/outbox", "internal/outbox/1/requeue", "actuator/circuitbreakers", "nothing", "",
            ].map { "/\(service)/\($0)" }
        }
        plain += [
            "/product-service/openapi.json", "/product-service/health_check", "/", "/nothing", "/product-service", "/order-service",
            "/.gateway/unknown/json",
        ]
        let written = plain.flatMap { path -> [String] in
            let parts = path.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
            func with(_ index: Int, _ text: String) -> String {
                var parts = parts
                parts[index] = text
                return parts.joined(separator: "/")
            }
            let last = parts.count - 1
            let first = parts[last].utf8.first.map { "%" + String($0, radix: 16) } ?? ""
            return [
                path, path + "/", path + "?x=1", with(last, first + parts[last].dropFirst()),
                with(last, first.uppercased() + parts[last].dropFirst()),
                "/" + path, path.replacingOccurrences(of: "/", with: "//"), with(last, parts[last] + ";x"), with(last, ";/" + parts[last]),
                with(last, "./" + parts[last]), with(last, "x/../" + parts[last]), with(last, "%2e%2e/%2E./" + parts[last]),
                "/order-service/orders/.." + path, "/product-service/products/1/%2e%2E/../.." + path, "http://shop.example" + path,
                "http://127.0.0.1:9081" + path,
                path.replacingOccurrences(of: "/stock", with: "%2Fstock"), path.replacingOccurrences(of: "/stock", with: "%2fstock"),
                path.replacingOccurrences(of: "/stock", with: "%5cstock"), path.replacingOccurrences(of: "/stock", with: "\\stock"),
                path.uppercased(),
            ]
        }
        return written + [
            "/product-service/products/..", "/product-service/products/%2e%2e", "/product-service/products/.%2E",
            "/product-service/products/.",
            "/product-service/products/1;x", "/product-service/products/1#x", "/product-service/products/1%23",
            "/product-service/products/%EA%B9%80",
            "/product-service/%70roducts", "/%70roduct-service/products", "/Product-service/products", "/product-service/PRODUCTS",
            "/product-service/products/1/2",
            "/order-service/../orders", "/order-service/%2e%2e/orders", "/order-service/./orders", "/order-service//orders",
            "/order-service/orders//7",
            "/order-service/orders/7/cancel/x", "/order-service/orders/../7/cancel", "/order-service/v3/orders/7",
            "/order-service/v1/u-1/orders",
        ]
    }

    @Test func whatIsNotForBuyersIsNotThere() async throws {
        let (_, standIns, address) = try gateway()
        let before = standIns.seen.count
        let methods = ["GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS", "FOO"]
        for (index, path) in Self.closed.enumerated() {
            // Every path with GET and one other method.
            for method in ["GET", methods[1 + index % (methods.count - 1)]] {
                let answer = try await exchange(address, request(method, path, "Content-Length: 0\r\n"))
                // What nginx's own reader refuses is malformed, all else is not there.
                #expect(answer.status == 404 || answer.status == 400, "\(method) \(path): \(answer)")
                let code = answer.status == 400 ? "VALIDATION_ERROR" : "NOT_FOUND"
                #expect(method == "HEAD" ? answer.body.isEmpty : answer.error == code, "\(method) \(path): \(answer)")
                #expect(answer.count("x-request-id") == 1, "\(method) \(path): \(answer.head)")
            }
        }
        for path in [
            "/product-service/products", "/product-service/v1/products", "/product-service/products/1", "/product-service/products/A.b",
        ] {
            for method in ["POST", "PATCH", "DELETE", "PUT", "OPTIONS"] {
                let answer = try await exchange(address, request(method, path, "Content-Length: 0\r\n"))
                #expect(answer.status == 404 && answer.error == "NOT_FOUND", "\(method) \(path): \(answer)")
            }
        }
        #expect(standIns.seen.count == before, "\(standIns.seen.dropFirst(before))")
    }

    @Test(arguments: [
        ("DELETE", "/order-service/orders", "GET, HEAD, POST"), ("PUT", "/order-service/v2/orders", "POST"),
        ("POST", "/order-service/orders/7", "GET, HEAD"), ("PATCH", "/order-service/orders/7/events", "GET, HEAD"),
        ("GET", "/order-service/v1/orders/7/cancel", "POST"), ("OPTIONS", "/order-service/u-1/orders", "GET, HEAD, POST"),
        ("POST", "/order-service/readyz", "GET, HEAD"), ("TRACE", "/order-service/orders", "GET, HEAD, POST"),
        ("FOO", "/order-service/orders", "GET, HEAD, POST"),
        ("CONNECT", "/order-service/orders", "GET, HEAD, POST"),
    ])
    func anotherMethodIsTold(method: String, path: String, allowed: String) async throws {
        let answer = try await exchange(try gateway().address, request(method, path, "Content-Length: 0\r\n"))
        #expect(answer.status == 405 && answer.error == "METHOD_NOT_ALLOWED", "\(answer)")
        #expect(answer.head.contains("\r\nallow: \(allowed.lowercased())"), "\(answer.head)")
        let names = allowed.split(separator: ", ").map { "\"\($0)\"" }.joined(separator: ",")
        #expect(answer.body.hasSuffix("\"details\":{\"allowed\":[\(names)]}}"), "\(answer.body)")
    }

    /// nginx refuses some methods before it looks at the path: what is not there is not there for them either.
    @Test(arguments: ["TRACE", "CONNECT"]) func whatIsNotThereHasNoMethods(method: String) async throws {
        for path in ["/nope", "/order-service/metrics", "/order-service/admin/circuitbreakers", "/product-service/livez"] {
            let answer = try await exchange(try gateway().address, request(method, path))
            #expect(answer.status == 404 && answer.error == "NOT_FOUND" && answer.count("allow") == 0, "\(method) \(path): \(answer)")
        }
        for path in ["/.gateway/wait", "/.gateway/no-method", "/.gateway/method/json"] {
            let answer = try await exchange(try gateway().address, request("GET", path))
            #expect(answer.status == 404 && answer.error == "NOT_FOUND", "\(path): \(answer)")
        }
    }

    /// The gateway's own errors follow `Accept-Language` as the servers' do: the best quality, the earlier of equals, English where neither is wanted.
    @Test(arguments: [
        ("ko", "ko"), ("KO", "ko"), ("ko-KR,ko;q=0.9,en;q=0.8", "ko"), ("en;q=0.1, ko", "ko"), ("fr, ko;q=0.5", "ko"), ("ko, en", "ko"),
        ("ko;q=0.5,en;q=0.5", "ko"), ("ko;q=1.000,en;q=0.999", "ko"), ("en;q=0.5, *;q=0.8", "ko"), ("*;q=0.5, en;q=0", "ko"),
        ("ko ; q=0.7 , en ; q=0.3", "ko"), ("", "en"), ("en", "en"), ("en, ko", "en"), ("en;q=0.5,ko;q=0.5", "en"), ("ko;q=0", "en"),
        ("ko;q=0.000", "en"), ("ko ; q=0.7 , en ; q=0.9", "en"), ("ko;q=0.8, en", "en"), ("*", "en"), ("fr", "en"), ("korean", "en"),
        ("xko", "en"),
    ])
    func itsErrorsFollowTheLanguage(asked: String, expected: String) async throws {
        let answer = try await exchange(try gateway().address, request("GET", "/nope", "Accept-Language: \(asked)\r\n"))
        #expect(answer.status == 404 && answer.head.contains("\r\ncontent-language: \(expected)"), "\(answer)")
    }

    /// RFC 9457 where it is asked for by name with no less quality than `application/json`.
    @Test(arguments: [
        ("application/problem+json", "application/problem+json"), ("Application/Problem+JSON; charset=utf-8", "application/problem+json"),
        ("application/problem+json, application/json", "application/problem+json"),
        ("application/problem+json;q=0.9, */*;q=0.1", "application/problem+json"),
        ("text/html,application/problem+json;q=0.2", "application/problem+json"), ("application/json", "application/json"),
        ("*/*", "application/json"), ("application/*", "application/json"), ("application/problem+jsonx", "application/json"),
        ("application/problem+json;q=0", "application/json"), ("application/problem+json;q=0, application/json", "application/json"),
        ("application/json, application/problem+json;q=0.5", "application/json"),
        ("application/problem+json;q=0.2,application/*;q=0.5", "application/json"),
    ])
    func itsErrorsFollowTheType(asked: String, expected: String) async throws {
        let answer = try await exchange(try gateway().address, request("GET", "/nope", "Accept: \(asked)\r\n"))
        #expect(answer.status == 404 && answer.head.contains("\r\ncontent-type: \(expected)\r"), "\(answer)")
    }

    /// Addresses between brackets are judged as the servers judge them.
    @Test func hostsBetweenBrackets() async throws {
        let address = try gateway().address
        func status(_ host: String) async throws -> Int {
            try await exchange(address, "GET /order-service/orders/7 HTTP/1.1\r\nHost: \(host)\r\nConnection: close\r\n\r\n").status
        }
        for host in [
            "[::1]", "[::1]:80", "[1:2:3:4:5:6:7:8]", "[1:2:3:4:5:6:7::]", "[::2:3:4:5:6:7:8]", "[1:2::7:8]", "[::ffff:1.2.3.4]", "[::]",
        ] {
            #expect(try await status(host) == 200, "\(host)")
        }
        for host in [
            "[zz]", "[:]", "[:::]", "[::::]", "[a]:1", "[1.2.3.4]", "[12345::]", "[1:2:3:4:5:6:7]", "[1:2:3:4:5:6:7:8:9]", "[1::2::3]",
            "[::ffff:999.1.1.1]", "[v.a]", "[v1.]", "[]",
        ] {
            #expect(try await status(host) == 400, "\(host)")
        }
    }

    /// Whoever has said all and closes his half gets what he asked for, on every route that does not wait because he asked for it.
    @Test func halfAConnectionIsAnswered() async throws {
        let (_, standIns, address) = try gateway()
        for path in [
            "/order-service/orders/7", "/order-service/v1/orders/7", "/order-service/orders", "/order-service/livez",
            "/product-service/products/7", "/order-service/orders/7?", "/order-service/orders/7?expand=saga",
            "/order-service/v1/orders/7/?a=wait&waits=1&await",
        ] {
            for method in ["GET", "HEAD"] {
                let connection = try await RawConnection(address)
                defer { connection.close() }
                try await connection.send(Array("\(method) \(path) HTTP/1.1\r\nHost: a\r\n\r\n".utf8))
                try await connection.endSending()
                let answer = RawAnswer(try await connection.end(within: .seconds(60)))
                #expect(answer.status == 200, "\(method) \(path): \(answer)")
            }
        }
        // What waits because he asked for it ends with him, however it is written.
        for path in [
            "?wait=30s", "?expand=saga&wait=30s", "?wait", "/?wait&expand=saga", "?w%61it=30s", "?a=b&%77%61%69%74=30s", "/events",
        ] {
            let connection = try await RawConnection(address)
            defer { connection.close() }
            try await connection.send(Array("GET /order-service/orders/held\(path) HTTP/1.1\r\nHost: a\r\n\r\n".utf8))
            try await connection.endSending()
            #expect(try await connection.end(within: .seconds(60)).isEmpty, "\(path)")
        }
        standIns.release()
        // A read between two orders takes neither answer away.
        let order = "POST /order-service/orders HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        let before = standIns.seen.count
        let connection = try await RawConnection(address)
        defer { connection.close() }
        try await connection.send(Array("\(order)GET /order-service/orders/7 HTTP/1.1\r\nHost: a\r\n\r\n\(order)".utf8))
        try await connection.endSending()
        let text = try await connection.end(within: .seconds(60))
        #expect(text.components(separatedBy: "HTTP/1.1 200").count == 4, "\(text)")
        // Of those who have gone meanwhile a server may hear late.
        #expect(standIns.seen.dropFirst(before).filter { !$0.path.contains("held") }.count == 3)
    }

    /// Fields as a caller sends them, and what of them a server sees.
    @Test func fieldsOfTheConnectionEndHere() async throws {
        let (_, standIns, address) = try gateway()
        let fields = [
            "Proxy-Connection: close", "Keep-Alive: timeout=5", "TE: trailers", "Trailer: X-Sum", "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABk",
            "Proxy-Authorization: Basic eDp5", "Proxy-Authenticate: Basic", "Expect: nonsense", "Forwarded: for=127.0.0.1",
            "X-Forwarded-For: 127.0.0.1, ::1",
            "X-Forwarded-Host: localhost", "X-Real-IP: 127.0.0.1", "Via: 1.1 other", "X-Request-Id: buyer-7", "traceparent: 00-1",
            "Authorization: Bearer buyer's",
            "Idempotency-Key: k-1", "X-Shop: kept",
        ]
        for (connection, id) in [
            ("close, Upgrade , HTTP2-Settings,TE", "buyer-7"), ("keep-alive, Proxy-Connection,close", "buyer-7"), (",close,", "buyer-7"),
        ] {
            let before = standIns.seen.count
            let head =
                "GET /order-service/orders/7 HTTP/1.1\r\nHost: shop.example\r\nConnection: \(connection)\r\n"
                + fields.map { $0 + "\r\n" }.joined()
            let answer = try await exchange(address, head + "\r\n")
            #expect(answer.status == 200 && answer.head.contains("\r\nx-request-id: \(id)"), "\(answer)")
            let seen = try #require(standIns.seen.dropFirst(before).first)
            #expect(
                Set(seen.fields.map { "\($0.name.lowercased()): \($0.value)" }) == [
                    "host: shop.example", "x-forwarded-for: 127.0.0.1", "x-forwarded-proto: http", "x-request-id: buyer-7",
                    "traceparent: 00-1",
                    "authorization: Bearer buyer's", "idempotency-key: k-1", "x-shop: kept",
                ]
            )
        }
        // A field that is named besides these cannot be taken out: nothing is passed on.
        let before = standIns.seen.count
        for connection in ["close, X-Shop", "Idempotency-Key", "close, X-Forwarded-For", "close; x", "close x"] {
            let answer = try await exchange(
                address,
                "POST /order-service/orders HTTP/1.1\r\nHost: a\r\nConnection: \(connection)\r\nX-Shop: a\r\nIdempotency-Key: k\r\nContent-Length: 0\r\n\r\n"
            )
            #expect(answer.status == 400 && answer.error == "VALIDATION_ERROR", "\(connection): \(answer)")
        }
        #expect(standIns.seen.count == before)
        // An id that a server would replace is replaced here, so that both say the same.
        for id in ["a b", "a/b", "", String(repeating: "x", count: 129), "a\u{e9}"] {
            let answer = try await exchange(address, request("GET", "/order-service/orders/7", "X-Request-Id: \(id)\r\n"))
            let seen = try #require(standIns.seen.last?.fields.first(name: "x-request-id"))
            #expect(seen.count == 32 && answer.head.contains("\r\nx-request-id: \(seen)"), "\(id): \(answer.head)")
        }
    }

    /// Requests that are odd, and the status of the answer; nil for any.
    static var odd: [(name: String, bytes: String, status: Int?)] {
        let get = "GET /order-service/orders/7 HTTP/1.1\r\n"
        let post = "POST /order-service/orders HTTP/1.1\r\nHost: a\r\n"
        return [
            ("Proxy-Connection: close", get + "Host: a\r\nProxy-Connection: close\r\n\r\n", 200),
            ("Proxy-Connection: close on a POST", post + "Proxy-Connection: close\r\nContent-Length: 2\r\n\r\n{}", 200),
            ("Connection: Close", get + "Host: a\r\nConnection: Close\r\n\r\n", 200),
            ("HTTP/1.0", "GET /order-service/orders/7 HTTP/1.0\r\n\r\n", 200),
            ("HTTP/1.0 keep-alive", "GET /order-service/orders/7 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200),
            (
                "Upgrade: h2c", get + "Host: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
                200
            ),
            ("Upgrade: websocket", get + "Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n", 200),
            ("Expect: 100-continue", post + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}", 200),
            ("chunked", post + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 200),
            ("trailers", post + "Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2\r\n{}\r\n0\r\nContent-Length: 9\r\n\r\n", 200),
            ("a server that drops it", "GET /order-service/orders/dropped HTTP/1.1\r\nHost: a\r\n\r\n", 503),
            ("no Host", get + "\r\n", 400), ("two Hosts", get + "Host: a\r\nHost: b\r\n\r\n", 400),
            ("empty Host", get + "Host:\r\n\r\n", 400), ("bad Host", get + "Host: a/b\r\n\r\n", 400),
            ("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
            ("HTTP/2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 400), ("garbage", "\u{0}\u{1}\u{2}\r\n\r\n", 400),
            ("TLS", "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}\u{3}\u{3}\r\n\r\n", 400),
            ("lower case method", "get / HTTP/1.1\r\nHost: a\r\n\r\n", 400), ("CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("TRACE", "TRACE /order-service/orders HTTP/1.1\r\nHost: a\r\n\r\n", 405),
            ("long target", "GET /\(String(repeating: "a", count: 9_000)) HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("long field", get + "Host: a\r\nA: \(String(repeating: "a", count: 9_000))\r\n\r\n", 400),
            (
                "long head", get + "Host: a\r\n" + (0..<6).map { "A\($0): \(String(repeating: "a", count: 7_000))\r\n" }.joined() + "\r\n",
                400
            ),
            ("two framings", post + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
            ("bad length", post + "Content-Length: x\r\n\r\n", 400),
            ("two lengths", post + "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", 400),
            ("gzip", post + "Transfer-Encoding: gzip\r\n\r\n", 400), ("bad chunk", post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
            ("large body", post + "Content-Length: 70000\r\n\r\n" + String(repeating: "x", count: 70_000), 413),
            ("space before the colon", get + "Host : a\r\n\r\n", 400),
            ("folded field", get + "Host: a\r\nA: b\r\n c\r\n\r\n", 400), ("NUL", get + "Host: a\r\nA: \u{0}\r\n\r\n", 400),
            ("bytes above 0x7F in a field", get + "Host: a\r\nA: \u{e9}\r\n\r\n", 200),
            ("bytes above 0x7F in the target", "GET /order-service/orders/\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("%zz", "GET /order-service/orders/%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("%00", "GET /order-service/orders/%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("above the root", "GET /../../x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("HTTP/0.9", "GET /order-service/orders/7\r\n", 0),
            (
                "conditions",
                get + "Host: a\r\nIf-Match: \"x\"\r\nIf-Unmodified-Since: Mon, 01 Jan 2001 00:00:00 GMT\r\nRange: bytes=0-1\r\n\r\n", 200
            ),
            (
                "conditions on an error",
                "GET /nothing HTTP/1.1\r\nHost: a\r\nIf-Match: \"x\"\r\nIf-None-Match: *\r\nRange: bytes=0-1\r\n\r\n", 404
            ),
        ]
    }

    /// Each odd request, then clean ones of others over the gateway's own connections to the servers.
    /// - Parameter judges: whether the odd ones must have the statuses that stand-ins give them
    static func harmNobody(_ address: String, clean: [String], judges: Bool) async throws {
        for (name, bytes, status) in odd {
            let answer = try await exchange(address, bytes)
            if let status, judges { #expect(answer.status == status, "\(name): \(answer)") }
            #expect(!answer.body.lowercased().contains("<html") && !answer.head.contains("text/html"), "\(name): \(answer)")
            if answer.status != 200 { #expect(answer.error != nil, "\(name): \(answer)") }
            // An answer to HTTP/0.9 has no head.
            if name != "HTTP/0.9" { #expect(answer.count("x-request-id") == 1, "\(name): \(answer)") }
            // Of buyers who come anew, so that whichever worker had the odd one has some of these, over every connection it keeps.
            for number in 0..<6 {
                for bytes in clean {
                    let clean = try await exchange(address, bytes)
                    #expect(clean.status == 200, "the \(number). after \(name): \(clean)")
                }
            }
        }
    }

    @Test func oddRequestsHarmNobodyElse() async throws {
        let post = request("POST", "/order-service/orders", "Content-Length: 2\r\n") + "{}"
        try await Self.harmNobody(try gateway().address, clean: [request("GET", "/order-service/orders/7"), post], judges: true)
    }

    /// The documented longest poll is what every waiting buyer sends. Those who get no answer in time must not take the servers from the others.
    @Test func slowAnswersTakeNoInstanceFromOthers() async throws {
        let (_, standIns, address) = try gateway()
        defer { standIns.release() }
        let polls = (0..<24).map { number in
            Task {
                let client = try await Client(address)
                defer { client.close() }
                let path =
                    number.isMultiple(of: 2)
                    ? "/order-service/orders/held-\(number)?wait=30s" : "/order-service/orders/held-\(number)/events"
                return try await client.call(.GET, path).status
            }
        }
        try await until("all polls wait at a server") { standIns.held >= 24 }
        let others = try await withThrowingTaskGroup(of: [Int].self) { group in
            for number in 0..<8 {
                group.addTask {
                    let client = try await Client(address)
                    defer { client.close() }
                    let paths: [(HTTPMethod, String)] = [
                        (.POST, "/order-service/orders"), (.GET, "/order-service/orders/7"), (.GET, "/order-service/orders/7?wait=30s"),
                        (.GET, "/order-service/u-1/orders"), (.GET, "/product-service/products"), (.GET, "/order-service/livez"),
                    ]
                    var statuses: [Int] = []
                    // Until the polls have timed out at the gateway, four seconds after they began, and a second longer: that long an instance would be out.
                    let end = ContinuousClock.now + .milliseconds(5_500)
                    // And more than a hundred requests in all, on a machine however slow.
                    while ContinuousClock.now < end || statuses.count < 13 {
                        let (method, path) = paths[(number + statuses.count) % paths.count]
                        statuses.append(try await client.call(method, path, json: method == .POST ? "{}" : nil).status)
                    }
                    return statuses
                }
            }
            return try await group.reduce(into: []) { $0 += $1 }
        }
        #expect(
            others.count > 100 && others.allSatisfy { $0 == 200 },
            "\(others.count { $0 != 200 }) of \(others.count) others were not served"
        )
        var ends: [Int] = []
        for poll in polls { ends.append(try await poll.value) }
        #expect(ends == Array(repeating: 503, count: 24))
        print("FAULT gateway: 24 polls without an answer; \(others.count) others, all served")
    }

    /// Who says nothing, or stops in the middle, is disconnected; nothing of it reaches a server.
    @Test func silenceIsEnded() async throws {
        let (_, standIns, address) = try gateway()
        let before = standIns.seen.count
        let began = ContinuousClock.now
        let beginnings = [
            "", "GET /order-service/orders/7 HTTP/1.1\r\nHost: a\r\n",
            "POST /order-service/orders HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{",
        ]
        var connections: [RawConnection] = []
        for beginning in beginnings {
            let connection = try await RawConnection(address)
            if !beginning.isEmpty { try await connection.send(beginning) }
            connections.append(connection)
        }
        for connection in connections {
            let text = try await connection.end(within: .seconds(90))
            #expect(!text.lowercased().contains("<html"), "\(text)")
            connection.close()
        }
        print("FAULT gateway: silent connections ended after \((ContinuousClock.now - began).text)")
        #expect(standIns.seen.count == before)
    }
}

extension Faults.GatewayWithALowBound {
    @Test func oneAddressHasABound() async throws {
        let (_, standIns, address) = try gateway()
        let held = (0..<40).map { number in
            Task {
                let client = try await Client(address)
                defer { client.close() }
                return try await client.call(.GET, "/order-service/orders/held-\(number)?wait=1s").status
            }
        }
        try await until("forty requests wait at a server") { standIns.held >= 40 }
        let refused = try await exchange(address, request("GET", "/order-service/orders/7"))
        #expect(refused.status == 503 && refused.error == "OVERLOADED", "\(refused)")
        #expect(refused.head.contains("\r\nretry-after: 1") && refused.count("x-request-id") == 1, "\(refused.head)")
        standIns.release()
        for task in held { #expect(try await task.value == 200) }
        #expect(try await exchange(address, request("GET", "/order-service/orders/7")).status == 200)
    }
}

extension Faults.GatewayWithPublicStock {
    @Test func theStockRoutesAreOpenAndNoOthers() async throws {
        let (stack, standIns, address) = try gateway()
        let token = try await stack.addresses().address("PRODUCT_SERVICE_TOKEN")
        let routes = [
            ("POST", "/products"), ("PATCH", "/v1/products/7"), ("DELETE", "/products/7"), ("PATCH", "/products/7/stock"),
            ("PATCH", "/products/7/stock/decrease-by-order"), ("PATCH", "/v1/products/7/stock/increase-by-order"),
            ("GET", "/products/7/stock/ledger?page=1"),
            ("GET", "/products/7/stock/requests/DEC-a%3Ab"),
        ]
        for (method, path) in routes {
            let answer = try await exchange(
                address,
                request(method, "/product-service" + path, "Content-Length: 0\r\nAuthorization: Bearer stranger\r\n")
            )
            let seen = try #require(standIns.seen.last)
            #expect(answer.status == 200 && seen.path == path && seen.method == method, "\(method) \(path): \(answer)")
            // The gateway's own token, which is not the order server's, and the caller's address.
            let shown = try #require(seen.fields.first(name: "authorization"))
            #expect(shown.hasPrefix("Bearer ") && shown.count == 39 && shown != "Bearer \(token)", "\(shown)")
            #expect(seen.fields["x-forwarded-for"] == ["127.0.0.1"])
        }
        // On routes that are open to everybody the gateway's token is shown to nobody.
        _ = try await exchange(address, request("GET", "/product-service/products/7", "Authorization: Bearer stranger\r\n"))
        #expect(standIns.seen.last?.fields["authorization"] == ["Bearer stranger"])
        let before = standIns.seen.count
        for path in [
            "/metrics", "/dashboard", "/admin/circuitbreakers", "/internal/stock/batch", "/actuator/circuitbreakers", "/products/7%2fstock",
            "/products/7/stock/x",
        ] {
            for method in ["GET", "POST", "PATCH"] {
                let answer = try await exchange(address, request(method, "/product-service" + path, "Content-Length: 0\r\n"))
                #expect(answer.status == 404 && answer.error == "NOT_FOUND", "\(method) \(path): \(answer)")
            }
        }
        let put = try await exchange(address, request("PUT", "/product-service/products/7", "Content-Length: 0\r\n"))
        #expect(put.status == 405 && put.head.contains("\r\nallow: delete, get, head, patch"), "\(put)")
        #expect(standIns.seen.count == before)
    }

    @Test func itIsSaidLoudly() async throws {
        let stack = try gateway().stack
        #expect(try await stack.run("status 2>&1").contains("GATEWAY_PUBLIC_STOCK=true: whoever reaches the gateway can change stock"))
        #expect(
            try await stack.run("start gateway 2>&1").contains("GATEWAY_PUBLIC_STOCK=true: whoever reaches the gateway can change stock")
        )
        // Closing it again needs servers and gateway to change together.
        await #expect(throws: (any Error).self) { try await stack.with(["GATEWAY_PUBLIC_STOCK": "false"]).run("start gateway") }
    }
}
