import APIErrors
import HotPath
import HTTPTypes
import Hummingbird
import HummingbirdTesting
import Logging
import NIOCore
import NIOPosix
import ServerMetrics
import StockContract
import StrictJSON
import Testing

@testable import ServerKit

/// One set of rules for what a request says, wherever it says it: path, query, header or body.
@Suite struct RequestRulesTests {
    private func error(_ read: () throws -> Void) -> APIError? {
        do {
            try read()
            return nil
        } catch {
            return error as? APIError
        }
    }

    // MARK: Targets

    @Test(
        "a path has one spelling, and its query stays as it came",
        arguments: [
            ("/orders", "/orders"), ("/", "/"), ("/%6Frders", "/orders"), ("/%6frders/%31", "/orders/1"),
            ("/a%2Fb/orders", "/a%2Fb/orders"), ("/a%2fb/orders", "/a%2Fb/orders"),
            ("/%EA%B9%80/orders", "/%EA%B9%80/orders"), ("/%ea%b9%80/orders", "/%EA%B9%80/orders"),
            ("/김/orders", "/%EA%B9%80/orders"),
            ("/DEC-a%3Ab", "/DEC-a:b"), ("/a+b", "/a+b"), ("/a%2Bb", "/a+b"), ("/a%20b", "/a%20b"),
            // Once: what a segment holds after that is its text.
            ("/a%2541", "/a%2541"), ("/%2525", "/%2525"), ("/%252F", "/%252F"),
            ("/a%3Fb?c=%3F", "/a%3Fb?c=%3F"), ("/a?b=%zz&c=%00", "/a?b=%zz&c=%00"), ("/a?", "/a?"), ("/a?b?c", "/a?b?c"),
            ("/a#b", "/a%23b"), ("/a?b#c", "/a?b%23c"), ("/a\"<>\\^`{|}", "/a%22%3C%3E%5C%5E%60%7B%7C%7D"),
            ("/~a!$&'()*+,;=:@-._", "/~a!$&'()*+,;=:@-._"), ("//a//b/", "//a//b/"), ("/%2e%2e/a/..", "/../a/.."),
            // A combining mark is no part of the slash before it.
            ("/a/%CC%81b", "/a/%CC%81b"),
            ("http://shop.example/orders?a=b", "/orders?a=b"), ("HTTPS://shop.example:1/%6Frders", "/orders"),
            ("http://shop.example", "/"), ("http://shop.example?a=b", "/?a=b"),
        ]
    )
    func spelling(target: String, spelled: String) throws {
        #expect(try RequestTarget(target).text == spelled)
    }

    @Test(
        "a path that is no text, or has control characters, is refused",
        arguments: [
            "/%", "/a/%4", "/%zz", "/%-1", "/%e", "/%FF", "/%C0%AF", "/%ED%A0%80", "/%EA%B9", "/%F4%90%80%80", "/a%00b", "/%1F", "/%0d%0a",
            "/%7F", "/%C2%80", "/%C2%9f", "/orders/%09",
        ]
    )
    func refusedTargets(target: String) {
        let refused = error { _ = try RequestTarget(target) }
        #expect(refused?.code == .validationError)
        #expect(refused?.details["field"] == "path")
    }

    @Test("a target that names no path is found nowhere", arguments: ["*", "", "shop.example:80", "orders", "://a/b", "1http://a/b"])
    func targetsWithoutPath(target: String) {
        #expect(error { _ = try RequestTarget(target) }?.code == .notFound)
    }

    @Test("every byte of a segment comes back from its spelling")
    func segmentsComeBack() throws {
        for value in 0x20...0x2FF where !(0x7F...0x9F).contains(value) {
            let text = try String(#require(Unicode.Scalar(value)))
            var path: [UInt8] = []
            PercentEncoding.append(segment: text, to: &path)
            #expect(
                path.allSatisfy {
                    (0x21...0x7E).contains($0) && $0 != UInt8(ascii: "/") && $0 != UInt8(ascii: "?") && $0 != UInt8(ascii: "#")
                }
            )
            #expect(try Values.decoded(path, field: "x", plusIsSpace: false) == text)
            let target = try RequestTarget("/" + String(decoding: path, as: UTF8.self))
            #expect(target == (try RequestTarget(target.text)))
        }
    }

    // MARK: Over HTTP

    private func application(query: [String] = ["page", "name"]) -> some ApplicationProtocol {
        let router = ServerRouter(metrics: HTTPMetrics(registry: MetricsRegistry()))
        router.get("orders") { _, _ in Response.text("orders") }
        router.get("list", query: query) { request, _ in
            Response.text("\(try request.queryInt("page", in: 0...9) ?? -1) \(try request.query("name") ?? "-")")
        }
        router.get("switch", query: ["on"]) { request, _ in Response.text("\(try request.querySwitch("on"))") }
        router.get("keys/{key}") { _, context in Response.text(try context.pathKey(orThrow: .notFound)) }
        router.get("{user}/orders") { _, context in Response.text(try context.pathText("user", length: 1...8, orThrow: .notFound)) }
        router.get("ids/{id}") { _, context in Response.text("\(try context.pathID(orThrow: .orderNotFound))") }
        router.post("key") { request, _ in Response.text(try request.requiredIdempotencyKey()) }
        return Application(responder: router.buildResponder(), logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
    }

    @Test(
        "routes and what they read see a path decoded once",
        arguments: [
            ("/%6Frders", 200, "orders"), ("/%EA%B9%80/orders", 200, "김"), ("/김/%6Frders", 200, "김"), ("/a%2Fb/orders", 200, "a/b"),
            ("/a+b/orders", 200, "a+b"), ("/a%2520b/orders", 200, "a%20b"), ("/%25/orders", 200, "%"), ("/%CC%81b/orders", 200, "\u{301}b"),
            ("/ids/%37", 200, "7"), ("/ids/%30", 404, "ORDER_NOT_FOUND"), ("/ids/7%2F", 404, "ORDER_NOT_FOUND"),
            ("/ids/%EF%BC%97", 404, "ORDER_NOT_FOUND"), ("/orders%2F", 404, "NOT_FOUND"), ("/orders%3Fa", 404, "NOT_FOUND"),
            ("/%00/orders", 400, "VALIDATION_ERROR"), ("/a%C2%85/orders", 400, "VALIDATION_ERROR"),
            ("/%FF/orders", 400, "VALIDATION_ERROR"),
            ("/nothing/here/%zz", 400, "VALIDATION_ERROR"), ("/toolonguser/orders", 404, "NOT_FOUND"),
            ("/%EA%B9%80%EA%B9%80%EA%B9%80%EA%B9%80%EA%B9%80%EA%B9%80%EA%B9%80%EA%B9%80/orders", 200, "김김김김김김김김"),
            ("/keys/DEC-a%3Ab", 200, "DEC-a:b"), ("/keys/%22DEC-1%22", 200, "DEC-1"), ("/keys/DEC%201", 200, "DEC 1"),
            ("/keys/a%2Cb", 200, "a,b"), ("/keys/%22DEC", 404, "NOT_FOUND"), ("/keys/%EA%B9%80", 404, "NOT_FOUND"),
        ]
    )
    func paths(path: String, status: Int, answer: String) async throws {
        try await application().test(.router) { client in
            let response = try await client.execute(uri: path, method: .get)
            #expect(response.status.code == status)
            let body = String(buffer: response.body)
            #expect(status == 200 ? body == answer : body.contains("\"error\":\"\(answer)\""), "\(body)")
            // By bytes: a decoded text is not another that looks like it.
            if status == 200 { #expect(body.utf8.elementsEqual(answer.utf8)) }
            #expect(response.headers[.requestID] != nil)
        }
    }

    @Test("who may not come in is told that, whatever the path")
    func guardsComeFirst() async throws {
        let registry = MetricsRegistry()
        let tokens = try #require(AdminTokens("1234"))
        let router = ServerAssembly.adminRouter(metrics: HTTPMetrics(registry: registry), registry: registry, tokens: tokens)
        try await Application(responder: router.buildResponder()).test(.router) { client in
            for path in ["/%FF", "/metrics?surplus"] {
                #expect(try await client.execute(uri: path, method: .get).status == .unauthorized)
                let inside = try await client.execute(uri: path, method: .get, headers: [.authorization: "Bearer 1234"])
                #expect(inside.status == .badRequest)
            }
            // Refusals are counted as any request that no route takes.
            let text = String(
                buffer: try await client.execute(uri: "/metrics", method: .get, headers: [.authorization: "Bearer 1234"]).body
            )
            #expect(text.contains(#"stockgate_http_requests_total{route="unmatched",method="other",status="400"} 1"#))
        }
    }

    @Test(
        "query parameters are decoded, and refused unless a route knows them",
        arguments: [
            ("/list?page=3&name=a+b%2Bc", 200, "3 a b+c", nil), ("/list?p%61ge=3", 200, "3 -", nil), ("/list", 200, "-1 -", nil),
            ("/list?", 200, "-1 -", nil), ("/list?&&", 200, "-1 -", nil), ("/list?name&page=", 200, "-1 -", nil),
            ("/list?Page=3", 400, "", "Page"), ("/list?page=1&sort=name&x", 400, "", "sort"), ("/list?page=1&page=1", 400, "", "page"),
            ("/list?page=1&p%61ge=2", 400, "", "page"), ("/list?name&name", 400, "", "name"), ("/list?=1", 400, "", ""),
            ("/list?page=10", 400, "", "page"), ("/list?page=1%23a", 400, "", "page"), ("/list?page=1#a", 400, "", "page"),
            ("/list?name=%FF", 400, "", "name"), ("/list?name=%0", 400, "", "name"), ("/list?name=%00", 400, "", "name"),
            ("/list?name=%C2%9F", 400, "", "name"), ("/list?%FF=1", 400, "", "query"), ("/list?n%0Ame=1", 400, "", "query"),
            ("/orders?page=1", 400, "", "page"), ("/orders?", 200, "orders", nil), ("/a/orders?a=b", 400, "", "a"),
            ("/switch", 200, "false", nil), ("/switch?on", 200, "true", nil), ("/switch?on=", 200, "true", nil),
            ("/switch?on=1", 200, "true", nil), ("/switch?on=false", 200, "false", nil), ("/switch?on=0", 200, "false", nil),
            ("/switch?on=yes", 400, "", "on"), ("/switch?on&on", 400, "", "on"),
        ] as [(String, Int, String, String?)]
    )
    func queries(uri: String, status: Int, answer: String, field: String?) async throws {
        try await application().test(.router) { client in
            for method in [HTTPRequest.Method.get, .head] {
                let response = try await client.execute(uri: uri, method: method)
                #expect(response.status.code == status)
                guard method == .get else { continue }
                if status == 200 { #expect(String(buffer: response.body) == answer) }
                let details = try? JSONDocument(Array(response.body.readableBytesView)).value["details"]
                #expect(details?["field"] == field.map { .string($0) })
            }
        }
    }

    @Test("the unknown are named, all of a few and the beginning of long ones, with what is known")
    func unknownNames() async throws {
        let long = String(repeating: "x", count: 100)
        try await application().test(.router) { client in
            let one = try await client.execute(uri: "/list?sort=a&page=1&%ED%95%9C=1", method: .get)
            let json = try JSONDocument(Array(one.body.readableBytesView)).value
            #expect(json["details"] == ["field": "sort", "unknown": ["sort", "한"], "known": ["page", "name"]])
            #expect(json["message"] == "There is no query parameter sort, 한 here, only page, name.")
            let many = try await client.execute(uri: "/orders?\(long)&" + (0..<20).map { "p\($0)" }.joined(separator: "&"), method: .get)
            let details = try JSONDocument(Array(many.body.readableBytesView)).value["details"]
            guard case .array(let told)? = details?["unknown"] else { throw APIError(.internalError) }
            #expect(told.count == 8)
            #expect(details?["field"] == .string(String(repeating: "x", count: 64) + "…"))
        }
    }

    // MARK: Bodies

    private func unknown(_ body: String) throws -> APIError? {
        let reader = try JSONObjectReader(body.utf8)
        return error { try reader.refuseMembers(otherThan: ["price", "name"]) }
    }

    @Test("members that a PATCH does not know are named")
    func members() throws {
        #expect(try unknown("{}") == nil)
        #expect(try unknown(#"{"price":1,"n\u0061me":null}"#) == nil)
        let two = try unknown(#"{"price":1,"stock":5,"x":{"price":1},"name":"a"}"#)
        #expect(two?.code == .validationError)
        #expect(two?.details == ["field": "stock", "unknown": ["stock", "x"], "known": ["price", "name"]])
        #expect(try unknown(#"{"stock":null}"#)?.details["field"] == "stock")
        #expect(try unknown(#"{"Price":1}"#)?.details["field"] == "Price")
        #expect(try unknown(#"{"":1}"#)?.details["field"] == "")
        #expect(try unknown(#"{"price\u0000":1}"#)?.details["field"] == "price\0")
    }

    @Test("a member given twice is named")
    func duplicateMembers() {
        #expect(error { _ = try JSONObjectReader(#"{"a":1,"quantity":1,"qu\u0061ntity":2}"#.utf8) }?.details["field"] == "quantity")
        #expect(error { _ = try JSONObjectReader(#"{"a""#.utf8) }?.details["field"] == "body")
        #expect(error { _ = try JSONObjectReader("[]".utf8) }?.details["field"] == "body")
    }

    // MARK: Keys

    @Test(
        "a key in quotes and the bare key are one",
        arguments: [
            ("k", "k"), ("\"k\"", "k"), ("DEC-1", "DEC-1"), ("\"DEC-1\"", "DEC-1"), (#""a\"b\\c""#, #"a"b\c"#), ("\" k \"", " k "),
            (#"a"b"#, #"a"b"#), (#"a\b"#, #"a\b"#), (#""\"k\"""#, #""k""#), ("a, b", "a, b"), ("\"a, b\"", "a, b"),
            ("\"" + String(repeating: "k", count: 255) + "\"", String(repeating: "k", count: 255)),
            (#"""# + String(repeating: #"\""#, count: 255) + #"""#, String(repeating: "\"", count: 255)),
        ]
    )
    func keys(text: String, key: String) throws {
        #expect(try Values.idempotencyKey(text) == key)
    }

    @Test(
        "a key that is none is refused",
        arguments: [
            "", "\"", "\"\"", "\"k", "\"k\"k\"", "\"k\" ", "\"k\";a=1", #""k\""#, #""k\x""#, #""k\"#, "\"ké\"", "é", "\"k\u{7F}\"",
            "k\u{9}",
            String(repeating: "k", count: 256), "\"" + String(repeating: "k", count: 256) + "\"",
        ]
    )
    func refusedKeys(text: String) {
        let refused = error { _ = try Values.idempotencyKey(text) }
        #expect(refused?.code == .validationError)
        #expect(refused?.details["field"] == "Idempotency-Key")
    }

    @Test("a key in two header lines is refused, whatever the lines say")
    func keysInTwoLines() async throws {
        try await application().test(.live) { client in
            for (lines, status) in [
                (["a"], 200), (["\"a\""], 200), (["a, b"], 200), (["a", "b"], 400), (["a", "a"], 400), (["", "a"], 400),
            ] {
                var headers = HTTPFields()
                for line in lines { headers.append(HTTPField(name: .idempotencyKey, value: line)) }
                let answer = try await client.execute(uri: "/key", method: .post, headers: headers)
                #expect(answer.status.code == status, "\(lines): \(String(buffer: answer.body))")
            }
        }
    }

    // MARK: The document

    @Test("query parameters are compared to the document, with those of the path and by reference")
    func documentedParameters() throws {
        let router = ServerRouter(metrics: HTTPMetrics(registry: MetricsRegistry()))
        router.get("a", query: ["page", "b", "c"]) { _, _ in Response.text("") }
        router.get("d", query: ["e"]) { _, _ in Response.text("") }
        router.post("a") { _, _ in Response.text("") }
        router.get("undocumented") { _, _ in Response.text("") }
        let document = OpenAPIDocument(
            Array(
                #"""
                {"paths":{"/a":{"parameters":[{"name":"b","in":"query"},{"name":"h","in":"header"}],
                "get":{"parameters":[{"$ref":"#/components/parameters/Page"},{"name":"c","in":"query"}]},"post":{}},
                "/d":{"get":{"parameters":[{"name":"f","in":"query"}]}}},
                "components":{"parameters":{"Page":{"name":"page","in":"query"}}}}
                """#.utf8
            )
        )
        #expect(
            try document.queryParameterDifferences(of: router.routes) == [
                #"GET /d: the document has ["f"], the route ["e"]"#, #"POST /a: the document has ["b"], the route []"#,
            ]
        )
    }
}
