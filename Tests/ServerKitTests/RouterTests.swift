import APIErrors
import HotPath
import HTTPTypes
import Hummingbird
import HummingbirdTesting
import Logging
import NIOCore
import ServerMetrics
import StockContract
import StrictJSON
import Testing

@testable import ServerKit

@Suite struct RouterTests {
    struct Boom: Error {}

    let registry = MetricsRegistry()

    private func application() -> some ApplicationProtocol {
        let router = ServerRouter(metrics: HTTPMetrics(registry: registry))
        router.versioned(.get, "/products/{id}") { _, context in
            let id = try context.pathID(orThrow: .productNotFound)
            return Response.json { $0.object { $0.member("id", id) } }
        }
        router.versioned(.patch, "/products/{id}") { request, _ in
            let body = try await request.jsonObject()
            let price = try body.int("price", in: Values.priceRange)
            return Response.json { $0.object { $0.member("price", price) } }
        }
        router.get("boom") { _, _ -> Response in throw Boom() }
        router.get("busy") { _, _ -> Response in throw APIError(.overloaded, retryAfter: .seconds(3)) }
        router.get("page", query: ["page", "size", "query"]) { request, _ in
            let paging = try request.paging()
            let text = try request.query("query") ?? "-"
            return Response.text("\(paging.page) \(paging.size) \(text)")
        }
        router.get("key") { request, _ in Response.text("\(try request.requiredIdempotencyKey()) \(try request.idempotencyAttempt())") }
        router.get("{user}/orders") { _, context in
            Response.text(try context.pathText("user", length: 1...8, orThrow: .notFound))
        }
        registry.register(on: router)
        // The log of the unexpected error is part of the test, not of its output.
        return Application(responder: router.buildResponder(), logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
    }

    private func json(_ response: TestResponse) throws -> JSONValue { try JSONDocument(Array(response.body.readableBytesView)).value }

    private func expect(
        _ response: TestResponse,
        _ status: Int,
        _ code: String,
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        #expect(response.status.code == status, sourceLocation: sourceLocation)
        #expect(try json(response)["error"] == .string(code), sourceLocation: sourceLocation)
        #expect(response.headers[.contentType] == "application/json", sourceLocation: sourceLocation)
        #expect(response.headers[.requestID] != nil, sourceLocation: sourceLocation)
    }

    @Test func routesAnswerWithAndWithoutVersion() async throws {
        try await application().test(.router) { client in
            for path in ["/products/7", "/v1/products/7"] {
                let response = try await client.execute(uri: path, method: .get)
                #expect(response.status == .ok)
                #expect(try json(response) == ["id": 7])
            }
        }
    }

    @Test func everyErrorHasTheOneShape() async throws {
        try await application().test(.router) { client in
            try expect(await client.execute(uri: "/nothing/here", method: .get), 404, "NOT_FOUND")
            try expect(await client.execute(uri: "/", method: .get), 404, "NOT_FOUND")
            try expect(await client.execute(uri: "/products/0", method: .get), 404, "PRODUCT_NOT_FOUND")
            try expect(await client.execute(uri: "/products/9223372036854775808", method: .get), 404, "PRODUCT_NOT_FOUND")
            try expect(await client.execute(uri: "/products/1", method: .patch, body: ByteBuffer(string: "{")), 400, "VALIDATION_ERROR")
            try expect(await client.execute(uri: "/products/1", method: .patch), 400, "VALIDATION_ERROR")
            try expect(await client.execute(uri: "/page?size=101", method: .get), 400, "VALIDATION_ERROR")
            try expect(await client.execute(uri: "/page?page=-1", method: .get), 400, "VALIDATION_ERROR")
            try expect(await client.execute(uri: "/page?query=%ff", method: .get), 400, "VALIDATION_ERROR")
            try expect(await client.execute(uri: "/key", method: .get), 400, "VALIDATION_ERROR")
            let busy = try await client.execute(uri: "/busy", method: .get)
            try expect(busy, 503, "OVERLOADED")
            #expect(busy.headers[.retryAfter] == "3")
        }
    }

    @Test func anUnexpectedErrorTellsNothing() async throws {
        try await application().test(.router) { client in
            let response = try await client.execute(uri: "/boom", method: .get)
            try expect(response, 500, "INTERNAL_ERROR")
            #expect(!String(buffer: response.body).contains("Boom"))
        }
    }

    @Test func aWrongMethodNamesTheRightOnes() async throws {
        try await application().test(.router) { client in
            let response = try await client.execute(uri: "/v1/products/1", method: .delete)
            try expect(response, 405, "METHOD_NOT_ALLOWED")
            #expect(response.headers[.allow] == "GET, HEAD, PATCH")
            #expect(try json(response)["details"]?["allowed"] == ["GET", "HEAD", "PATCH"])
            let other = try await client.execute(uri: "/ann/orders", method: .post)
            #expect(other.headers[.allow] == "GET, HEAD")
        }
    }

    @Test func languagesAndProblems() async throws {
        try await application().test(.router) { client in
            let korean = try await client.execute(uri: "/products/x", method: .get, headers: [.acceptLanguage: "ko-KR,en;q=0.8"])
            #expect(try json(korean)["message"] == "상품을 찾을 수 없습니다.")
            #expect(korean.headers[.contentLanguage] == "ko")
            let problem = try await client.execute(uri: "/nothing", method: .get, headers: [.accept: "application/problem+json"])
            #expect(problem.headers[.contentType] == "application/problem+json")
            #expect(try json(problem)["status"] == 404)
            #expect(try json(problem)["error"] == "NOT_FOUND")
        }
    }

    @Test func bodiesAreBoundedAndMustBeJSON() async throws {
        try await application().test(.router) { client in
            func patch(_ body: String, _ type: String?) async throws -> TestResponse {
                var headers = HTTPFields()
                headers[.contentType] = type
                return try await client.execute(uri: "/products/1", method: .patch, headers: headers, body: ByteBuffer(string: body))
            }
            #expect(try await patch(#"{"price":1}"#, nil).status == .ok)
            #expect(try await patch(#"{"price":1}"#, "application/json; charset=UTF-8").status == .ok)
            #expect(try await patch(#"{"price":1}"#, "application/merge-patch+json").status == .ok)
            try expect(await patch(#"{"price":1}"#, "text/plain"), 415, "UNSUPPORTED_MEDIA_TYPE")
            try expect(await patch(#"{"price":1}"#, "application/json; charset=latin1"), 415, "UNSUPPORTED_MEDIA_TYPE")
            let fits = #"{"price":1,"pad":""# + String(repeating: "x", count: Values.maximumBodyBytes - 20) + "\"}"
            #expect(fits.utf8.count == Values.maximumBodyBytes)
            #expect(try await patch(fits, "application/json").status == .ok)
            try expect(await patch(fits + " ", "application/json"), 413, "PAYLOAD_TOO_LARGE")
        }
    }

    @Test func headHasNoBody() async throws {
        try await application().test(.live) { client in
            for uri in ["/products/7", "/products/x", "/nothing", "/boom"] {
                let head = try await client.execute(uri: uri, method: .head)
                let get = try await client.execute(uri: uri, method: .get)
                #expect(head.status == get.status)
                #expect(head.body.readableBytes == 0)
            }
        }
    }

    @Test func queriesAndHeadersAreDecoded() async throws {
        try await application().test(.router) { client in
            let page = try await client.execute(uri: "/page?page=2&size=50&query=a+b%2Bc%20%ED%95%9C", method: .get)
            #expect(String(buffer: page.body) == "2 50 a b+c 한")
            let none = try await client.execute(uri: "/page?query=", method: .get)
            #expect(String(buffer: none.body) == "0 20 -")
            let key = try await client.execute(uri: "/key", method: .get, headers: [.idempotencyKey: "DEC-1", .idempotencyAttempt: "2"])
            #expect(String(buffer: key.body) == "DEC-1 2")
            let user = try await client.execute(uri: "/toolonguser/orders", method: .get)
            try expect(user, 404, "NOT_FOUND")
        }
    }

    @Test func requestIDsAreKeptOrMade() async throws {
        try await application().test(.router) { client in
            let kept = try await client.execute(uri: "/products/1", method: .get, headers: [.requestID: "abc-1.2:3_4"])
            #expect(kept.headers[.requestID] == "abc-1.2:3_4")
            let one = try await client.execute(uri: "/products/1", method: .get, headers: [.requestID: "a b"])
            let two = try await client.execute(uri: "/products/1", method: .get)
            #expect(one.headers[.requestID] != "a b")
            #expect(one.headers[.requestID] != two.headers[.requestID])
        }
    }

    @Test func requestsAreCountedByTemplate() async throws {
        try await application().test(.router) { client in
            for id in 1...3 { _ = try await client.execute(uri: "/products/\(id)", method: .get) }
            _ = try await client.execute(uri: "/products/x", method: .get)
            _ = try await client.execute(uri: "/made/up", method: .get)
            _ = try await client.execute(uri: "/products/1", method: .delete)
            let text = String(buffer: try await client.execute(uri: "/metrics", method: .get).body)
            #expect(text.contains(#"stockgate_http_requests_total{route="/products/{id}",method="GET",status="200"} 3"#))
            #expect(text.contains(#"stockgate_http_requests_total{route="/products/{id}",method="GET",status="404"} 1"#))
            #expect(text.contains(#"stockgate_http_requests_total{route="unmatched",method="other",status="404"} 1"#))
            #expect(text.contains(#"stockgate_http_requests_total{route="unmatched",method="other",status="405"} 1"#))
            #expect(text.contains(#"stockgate_http_request_duration_seconds_count{route="/products/{id}",method="GET"} 4"#))
            #expect(text.contains("stockgate_http_requests_active 1\n"))
            #expect(!text.contains("made"))
        }
    }

    @Test func traceparents() {
        #expect(isTraceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"))
        for wrong in [
            "", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01", "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ] { #expect(!isTraceparent(wrong)) }
    }

    @Test func routesAreComparedToTheDocument() throws {
        let router = ServerRouter(metrics: HTTPMetrics(registry: MetricsRegistry()))
        router.get("products/{id}") { _, _ in Response.text("") }
        router.post("secret") { _, _ in Response.text("") }
        let document = OpenAPIDocument(Array(#"{"paths":{"/products/{id}":{"parameters":[],"get":{}},"/gone":{"put":{}}}}"#.utf8))
        #expect(try document.undocumentedRoutes(of: router.routes) == ["POST /secret"])
        #expect(try document.unservedOperations(of: router.routes) == ["PUT /gone"])
    }
}
