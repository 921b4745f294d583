import Logging
import NIOHTTP1
import NIOPosix
import ServerKit
import StrictJSON
import Synchronization
import Testing

@testable import OrderServer

@Suite("Orders over HTTP", .serialized, .timeLimit(.minutes(10)))
struct OrderHTTPTests {
    @Test("an order is confirmed, shown, listed, cancelled once")
    func life() async throws {
        try await TestBed.run { bed in
            let made = try await bed.place()
            #expect(made.status == 200)
            #expect(made["status"] == "CONFIRMED")
            #expect(made["failReason"] == .null)
            guard case .int(let id) = made["id"] else { throw TestBed.Failure(description: "no id") }
            #expect(bed.product.stock(1) == 97)

            let shown = try await bed.send(.GET, "/v1/orders/\(id)?expand=saga")
            #expect(shown["buyerId"] == "u-001")
            guard case .array(let steps) = shown["saga"] else { throw TestBed.Failure(description: "no steps") }
            #expect(steps.count == 1)
            #expect(steps.first?["step"] == "STOCK")
            #expect(steps.first?["outcome"] == "DONE")

            let list = try await bed.send(.GET, "/orders?buyerId=u-001&status=CONFIRMED&size=1")
            #expect(list["totalElements"] == 1)
            let none = try await bed.send(.GET, "/orders?buyerId=u-001&status=FAILED")
            #expect(none["totalElements"] == 0)
            #expect(none["content"] == .array([]))

            let cancelled = try await bed.send(.POST, "/orders/\(id)/cancel", headers: ["idempotency-key": "c-1"])
            #expect(cancelled["status"] == "CANCELLED")
            #expect(bed.product.stock(1) == 100)
            let repeated = try await bed.send(.POST, "/orders/\(id)/cancel", headers: ["idempotency-key": "c-1"])
            #expect(repeated.status == 200)
            #expect(repeated.headers.first(name: "idempotency-replayed") == "true")
            let another = try await bed.send(.POST, "/orders/\(id)/cancel")
            #expect(another.status == 400)
            #expect(another["error"] == "INVALID_STATE")
            #expect(bed.product.stock(1) == 100)
            #expect(try await bed.count("select count(*) from saga_work") == 0)
        }
    }

    @Test("refusals of the product server are final states with their code", .timeLimit(.minutes(10)))
    func refusals() async throws {
        try await TestBed.run(stock: [1: 2, 2: 0], settings: ["SOLD_OUT_MEMORY": "0s"]) { bed in
            let soldOut = try await bed.place(3)
            #expect(soldOut.status == 400)
            #expect(soldOut["error"] == "INSUFFICIENT_STOCK")
            let shown = try await bed.send(.GET, "/orders/\(try soldOut.refusedOrder)")
            #expect(shown["status"] == "FAILED")
            #expect(shown["failReason"] == "INSUFFICIENT_STOCK")
            let missing = try await bed.place(1, product: 77)
            #expect(missing.status == 200)
            #expect(missing["status"] == "FAILED")
            #expect(missing["failReason"] == "PRODUCT_NOT_FOUND")
            guard case .int(let id) = missing["id"] else { throw TestBed.Failure(description: "no id") }
            let cancel = try await bed.send(.POST, "/orders/\(id)/cancel")
            #expect(cancel.status == 400)
            #expect(cancel["error"] == "INVALID_STATE")
            #expect(bed.product.stock(1) == 2)
        }
    }

    @Test("a product known to be sold out costs neither a call nor a row; a key that has an order still gets it")
    func soldOutIsRemembered() async throws {
        try await TestBed.run(stock: [1: 3], adjust: TestBed.longMemory) { bed in
            let made = try await bed.place(3, key: "winner")
            #expect(made["status"] == "CONFIRMED")
            let first = try await bed.place(1)
            #expect(first.status == 400)
            #expect(try await bed.send(.GET, "/orders/\(first.refusedID ?? 0)")["status"] == "FAILED")
            let calls = bed.product.seen.count
            let turnedAway = try await bed.place(1, key: "loser")
            #expect(turnedAway.status == 400)
            #expect(turnedAway["error"] == "INSUFFICIENT_STOCK")
            #expect(turnedAway["details"] == ["productId": 1])
            #expect(bed.product.seen.count == calls)
            #expect(try await bed.count("select count(*) from orders") == 2)
            let again = try await bed.place(3, key: "winner")
            #expect(again["status"] == "CONFIRMED")
            #expect(again.headers.first(name: "idempotency-replayed") == "true")
        }
    }

    @Test("PERSIST_REJECTED keeps a FAILED order without a call")
    func persistRejected() async throws {
        try await TestBed.run(stock: [1: 0], settings: ["PERSIST_REJECTED": "true"], adjust: TestBed.longMemory) { bed in
            _ = try await bed.place(1)
            let kept = try await bed.place(1)
            #expect(kept.status == 400)
            #expect(kept["error"] == "INSUFFICIENT_STOCK")
            let shown = try await bed.send(.GET, "/orders/\(try kept.refusedOrder)")
            #expect(shown["status"] == "FAILED")
            #expect(shown["failReason"] == "INSUFFICIENT_STOCK")
            #expect(bed.product.seen.count == 1)
            #expect(try await bed.count("select count(*) from orders where status = 'FAILED'") == 2)
        }
    }

    @Test(
        "a call that fails in passing is repeated under the same key with a rising attempt",
        arguments: [
            ProductStandIn.Fault.dropBefore, .dropAfter, .status(500, "INTERNAL_ERROR"), .status(503, "OVERLOADED"), .hang,
            .items(503, "OVERLOADED"), .items(409, "REQUEST_IN_PROGRESS"),
        ]
    )
    func retries(fault: ProductStandIn.Fault) async throws {
        try await TestBed.run(settings: ["PRODUCT_TIMEOUT": fault.isSilent ? "3s" : "5s"]) { bed in
            bed.product.script(fault)
            let made = try await bed.place(key: "k")
            #expect(made["status"] == "CONFIRMED", "\(made)")
            #expect(bed.product.stock(1) == 97)
            #expect(bed.product.seen.map { $0.suffix(2) } == [" 1", " 2"])
        }
    }

    @Test("a lost refusal is a refusal for want of stock")
    func lostRefusal() async throws {
        try await TestBed.run(stock: [1: 0]) { bed in
            bed.product.script(.dropBefore, .dropAfter)
            let made = try await bed.place()
            #expect(made["error"] == "INSUFFICIENT_STOCK")
            #expect(try await bed.send(.GET, "/orders/\(made.refusedID ?? 0)")["failReason"] == "INSUFFICIENT_STOCK")
            #expect(bed.product.seen.count == 3)
        }
    }

    @Test("no answer in time is 424, the order stays PENDING and recovery settles it")
    func noAnswer() async throws {
        // A call is made again within the deadline, which a busy machine keeps with everything but the silent calls.
        try await TestBed.run(settings: ["ORDER_DEADLINE": "4s", "PRODUCT_TIMEOUT": "2500ms"]) { bed in
            bed.product.script(.dropAfter, .hang, .hang, .hang)
            let made = try await bed.place(key: "k")
            #expect(made.status == 424)
            #expect(made["error"] == "DEPENDENCY_FAILED")
            #expect(made.headers.contains(name: "retry-after"))
            try await bed.wait("select count(*) from orders where status = 'CONFIRMED'", for: 1)
            #expect(bed.product.stock(1) == 97)
            let again = try await bed.place(key: "k")
            #expect(again["status"] == "CONFIRMED")
            #expect(try await bed.count("select count(*) from orders") == 1)
        }
    }

    @Test("without the batch endpoint, one request each to the public one")
    func publicFallback() async throws {
        try await TestBed.run(settings: ["PRODUCT_INTERNAL_URL": ""]) { bed in
            bed.product.script(.status(503, "OVERLOADED"))
            let made = try await bed.place()
            #expect(made["status"] == "CONFIRMED")
            #expect(bed.product.seen.count == 2)
            guard case .int(let id) = made["id"] else { throw TestBed.Failure(description: "no id") }
            #expect(try await bed.send(.POST, "/orders/\(id)/cancel")["status"] == "CANCELLED")
            #expect(bed.product.stock(1) == 100)
        }
    }

    @Test("its token is shown with every change of stock, one by one and in batches", arguments: [true, false])
    func token(isBatch: Bool) async throws {
        var settings = ["PRODUCT_SERVICE_TOKEN": "s3cret"]
        if !isBatch { settings["PRODUCT_INTERNAL_URL"] = "" }
        try await TestBed.run(settings: settings) { bed in
            let made = try await bed.place()
            guard case .int(let id) = made["id"] else { throw TestBed.Failure(description: "no id") }
            #expect(try await bed.send(.POST, "/orders/\(id)/cancel")["status"] == "CANCELLED")
            #expect(bed.product.state.withLock { $0.authorizations } == ["Bearer s3cret", "Bearer s3cret"])
        }
        try await TestBed.run { bed in
            _ = try await bed.place()
            #expect(bed.product.state.withLock { $0.authorizations } == [nil])
        }
    }

    @Test("one key: the same order; another payload: 422; at two servers at once: one order")
    func keys() async throws {
        try await TestBed.run(servers: 2) { bed in
            let first = try await bed.place(key: "a")
            let second = try await bed.place(key: "a", server: 1)
            #expect(first["id"] == second["id"])
            #expect(second.headers.first(name: "idempotency-replayed") == "true")
            let other = try await bed.place(4, key: "a")
            #expect(other.status == 422)
            #expect(other["error"] == "KEY_REUSED")

            for round in 0..<5 {
                let answers = try await withThrowingTaskGroup(of: TestBed.Answer.self) { group in
                    for index in 0..<8 { group.addTask { try await bed.place(1, key: "round \(round)", server: index % 2) } }
                    return try await group.reduce(into: [TestBed.Answer]()) { $0.append($1) }
                }
                #expect(answers.allSatisfy { $0["status"] == "CONFIRMED" })
                #expect(answers.allSatisfy { $0["id"] == answers[0]["id"] })
                #expect(answers.filter { !$0.headers.contains(name: "idempotency-replayed") }.count == 1)
            }
            #expect(bed.product.stock(1) == 92)
            #expect(try await bed.count("select count(*) from orders") == 6)
        }
    }

    @Test("many orders at once go in few calls, and every unit is accounted for")
    func batches() async throws {
        try await TestBed.run(
            servers: 2,
            stock: [1: 150],
            settings: ["ORDER_DEADLINE": "20s", "PRODUCT_TIMEOUT": "15s", "RECOVERY_AGE": "60s"]
        ) { bed in
            bed.product.state.withLock { $0.isHeld = true }
            let answers = try await withThrowingTaskGroup(of: TestBed.Answer.self) { group in
                for index in 0..<200 { group.addTask { try await bed.place(1, server: index % 2) } }
                // At once, on a machine that takes its time as well: all of them are there before the first is answered.
                try await bed.wait("select count(*) from orders", for: 200)
                bed.product.state.withLock { $0.isHeld = false }
                return try await group.reduce(into: [TestBed.Answer]()) { $0.append($1) }
            }
            #expect(answers.filter { $0["status"] == "CONFIRMED" }.count == 150)
            #expect(answers.allSatisfy { $0.status == 200 || $0["error"] == "INSUFFICIENT_STOCK" })
            #expect(bed.product.stock(1) == 0)
            #expect(bed.product.state.withLock { $0.calls } < 150)
            #expect(try await bed.count("select count(*) from orders where status = 'CONFIRMED'") == 150)
            #expect(try await bed.count("select count(*) from orders where status = 'PENDING'") == 0)
        }
    }

    @Test("two cancels at once give back once and are both answered with the cancelled order")
    func cancelTwice() async throws {
        try await TestBed.run(servers: 2) { bed in
            guard case .int(let id) = try await bed.place()["id"] else { throw TestBed.Failure(description: "no id") }
            async let one = bed.send(.POST, "/orders/\(id)/cancel", to: 0)
            async let two = bed.send(.POST, "/orders/\(id)/cancel", to: 1)
            let answers = try await [one, two]
            #expect(answers.contains { $0["status"] == "CANCELLED" })
            // One that comes when all is done is told the state.
            #expect(answers.allSatisfy { $0["status"] == "CANCELLED" || $0["error"] == "INVALID_STATE" })
            #expect(bed.product.stock(1) == 100)
        }
    }

    @Test("an order stays CONFIRMED while its stock cannot be given back, and is cancelled when it can")
    func cancelWithoutAnswer() async throws {
        try await TestBed.run(settings: ["ORDER_DEADLINE": "4s", "PRODUCT_TIMEOUT": "2500ms", "RECOVERY_AGE": "4200ms"]) { bed in
            guard case .int(let id) = try await bed.place()["id"] else { throw TestBed.Failure(description: "no id") }
            bed.product.state.withLock { $0.faults = Array(repeating: .hang, count: 100) }
            let answer = try await bed.send(.POST, "/orders/\(id)/cancel")
            #expect(answer.status == 424)
            #expect(try await bed.send(.GET, "/orders/\(id)")["status"] == "CONFIRMED")
            bed.product.script()
            try await bed.wait("select count(*) from orders where status = 'CANCELLED'", for: 1)
            #expect(bed.product.stock(1) == 100)
        }
    }

    @Test("a cancellation that the product server refuses leaves the order CONFIRMED for good")
    func cancelRefused() async throws {
        try await TestBed.run { bed in
            guard case .int(let id) = try await bed.place()["id"] else { throw TestBed.Failure(description: "no id") }
            bed.product.script(.items(404, "PRODUCT_NOT_FOUND"))
            let answer = try await bed.send(.POST, "/orders/\(id)/cancel")
            #expect(answer.status == 424)
            #expect(try await bed.send(.GET, "/orders/\(id)")["status"] == "CONFIRMED")
            #expect(try await bed.count("select count(*) from saga_work") == 0)
            #expect(try await bed.count("select count(*) from orders where cancel_requested_at is not null") == 0)
        }
    }

    @Test("a FAILED order runs again under new keys")
    func retry() async throws {
        try await TestBed.run(stock: [1: 0]) { bed in
            let id = try await bed.place().refusedOrder
            bed.product.state.withLock { $0.stock[1] = 10 }
            let again = try await bed.send(.POST, "/internal/orders/\(id)/retry", admin: true)
            #expect(again["status"] == "CONFIRMED")
            #expect(bed.product.seen.last == "OUT DEC-\(id).2 1")
            #expect(bed.product.stock(1) == 7)
            let third = try await bed.send(.POST, "/internal/orders/\(id)/retry", admin: true)
            #expect(third["error"] == "INVALID_STATE")
            #expect(try await bed.send(.POST, "/orders/\(id)/cancel")["status"] == "CANCELLED")
            #expect(bed.product.seen.last == "IN INC-\(id).2 1")
            #expect(bed.product.stock(1) == 10)
            #expect(try await bed.send(.POST, "/internal/orders/999/retry", admin: true)["error"] == "ORDER_NOT_FOUND")
        }
    }

    @Test("the user's family: by code, totals in integers, overflow and wrong prices refused")
    func userOrders() async throws {
        try await TestBed.run { bed in
            func order(_ body: String) async throws -> TestBed.Answer { try await bed.send(.POST, "/u-9/orders", body) }
            let made = try await order(#"{"productId":"CATALOG-002","qty":2,"unitPrice":900}"#)
            #expect(made.status == 201)
            #expect(made["totalPrice"] == 1800)
            #expect(made["productId"] == "CATALOG-002")
            #expect(made["status"] == "CONFIRMED")
            #expect(try await order(#"{"productId":"1","qty":2,"unitPrice":900}"#)["productId"] == "1")
            let wrong = try await order(#"{"productId":"CATALOG-002","qty":2,"unitPrice":901}"#)
            #expect(wrong.status == 400)
            #expect(wrong["details"]["field"] == "unitPrice")
            let huge = try await order(#"{"productId":"CATALOG-002","qty":1000000000,"unitPrice":1000000000000}"#)
            #expect(huge["error"] == "VALIDATION_ERROR")
            #expect(try await order(#"{"productId":"NO-SUCH","qty":2,"unitPrice":900}"#)["error"] == "PRODUCT_NOT_FOUND")
            guard case .array(let list) = try await bed.send(.GET, "/u-9/orders").json else {
                throw TestBed.Failure(description: "no list")
            }
            #expect(list.count == 2)
            #expect(try await bed.send(.GET, "/health_check").status == 200)
        }
    }

    @Test(
        "bad input is refused in the one shape and changes nothing",
        arguments: [
            (#"{"productId":1,"quantity":0}"#, 400, "VALIDATION_ERROR"), (#"{"productId":1,"quantity":-1}"#, 400, "VALIDATION_ERROR"),
            (#"{"productId":1,"quantity":1.5}"#, 400, "VALIDATION_ERROR"), (#"{"productId":1,"quantity":"3"}"#, 400, "VALIDATION_ERROR"),
            (#"{"productId":1,"quantity":9223372036854775808}"#, 400, "VALIDATION_ERROR"),
            (#"{"productId":1,"quantity":1000000001}"#, 400, "VALIDATION_ERROR"), (#"{"productId":1}"#, 400, "VALIDATION_ERROR"),
            (#"{"quantity":1}"#, 400, "VALIDATION_ERROR"), (#"{"productId":0,"quantity":1}"#, 400, "VALIDATION_ERROR"),
            (#"{"productId":1,"quantity":1,"quantity":2}"#, 400, "VALIDATION_ERROR"), (#"{"productId":1,"quan"#, 400, "VALIDATION_ERROR"),
            (#"{"productId":1,"quantity":1,"buyerId":""}"#, 400, "VALIDATION_ERROR"),
            (#"{"productId":1,"quantity":1,"buyerId":"a\u0000b"}"#, 400, "VALIDATION_ERROR"),
            (#"{"productId":1,"quantity":1,"buyerId":7}"#, 400, "VALIDATION_ERROR"), ("[]", 400, "VALIDATION_ERROR"),
            ("", 400, "VALIDATION_ERROR"),
            (String(repeating: " ", count: 70_000), 413, "PAYLOAD_TOO_LARGE"),
        ]
    )
    func badInput(body: String, status: Int, code: String) async throws {
        try await BadInput.bed { bed in
            let answer = try await bed.send(.POST, "/orders", body)
            #expect(answer.status == status)
            #expect(answer["error"] == .string(code))
            #expect(answer.json["message"] != nil)
            #expect(answer.json["details"] != nil)
            #expect(try await bed.count("select count(*) from orders") == 0)
            #expect(bed.product.seen.isEmpty)
        }
    }

    @Test("other bad requests")
    func badRequests() async throws {
        try await BadInput.bed { bed in
            let order = #"{"productId":1,"quantity":1}"#
            func expect(_ answer: TestBed.Answer, _ status: Int, _ code: String, _ line: Int = #line) {
                #expect(answer.status == status, "line \(line)")
                #expect(answer["error"] == .string(code), "line \(line)")
            }
            expect(try await bed.send(.POST, "/orders", order, headers: ["content-type": "text/plain"]), 415, "UNSUPPORTED_MEDIA_TYPE")
            expect(try await bed.send(.POST, "/orders", order, headers: ["idempotency-key": ""]), 400, "VALIDATION_ERROR")
            expect(
                try await bed.send(.POST, "/orders", order, headers: ["idempotency-key": String(repeating: "k", count: 256)]),
                400,
                "VALIDATION_ERROR"
            )
            expect(try await bed.send(.POST, "/orders", order, headers: ["prefer": "respond-async"]), 501, "NOT_IMPLEMENTED")
            expect(try await bed.send(.POST, "/v2/orders", order), 501, "NOT_IMPLEMENTED")
            expect(try await bed.send(.GET, "/orders/0"), 404, "ORDER_NOT_FOUND")
            expect(try await bed.send(.GET, "/orders/abc"), 404, "ORDER_NOT_FOUND")
            expect(try await bed.send(.GET, "/orders/9223372036854775808"), 404, "ORDER_NOT_FOUND")
            expect(try await bed.send(.GET, "/orders/1?expand=all"), 400, "VALIDATION_ERROR")
            expect(try await bed.send(.GET, "/orders?size=101"), 400, "VALIDATION_ERROR")
            expect(try await bed.send(.GET, "/orders?page=-1"), 400, "VALIDATION_ERROR")
            expect(try await bed.send(.GET, "/orders?status=LOST"), 400, "VALIDATION_ERROR")
            expect(try await bed.send(.DELETE, "/orders/1"), 405, "METHOD_NOT_ALLOWED")
            expect(try await bed.send(.GET, "/a/b/c"), 404, "NOT_FOUND")
            let korean = try await bed.send(.GET, "/orders/9", headers: ["accept-language": "ko"])
            #expect(korean["message"] == "주문을 찾을 수 없습니다.")
            #expect(try await bed.count("select count(*) from orders") == 0)
        }
    }

    @Test("what is served is documented and the other way round")
    func document() async throws {
        try await BadInput.bed { bed in
            let answer = try await bed.send(.GET, "/openapi.json")
            #expect(answer["openapi"] == "3.1.0")
        }
        var reader = SettingsReader(environment: [:])
        let parts = try OrderServerParts(try OrderServerConfiguration(from: &reader), group: .singleton, logger: .init(label: "test"))
        let document = OpenAPIDocument(PackageResources.openapi_json)
        let routes = parts.publicRouter.routes + parts.adminRouter.routes
        let undocumented = try document.undocumentedRoutes(of: routes)
        let unserved = try document.unservedOperations(of: routes)
        #expect(undocumented == [])
        #expect(unserved == [])
    }
}

/// One bed a test, for tests that change nothing.
private enum BadInput {
    static func bed(_ body: (TestBed) async throws -> Void) async throws {
        try await TestBed.run(body)
    }
}
