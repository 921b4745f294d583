import NIOHTTP1
import PostgresClient
import ServerKit
import StrictJSON
import Synchronization
import Testing

@testable import OrderServer

@Suite("Sold out has one shape", .serialized, .timeLimit(.minutes(10)))
struct SoldOutTests {
    private func isRefusal(_ answer: TestBed.Answer) -> Bool { answer.status == 400 && answer["error"] == "INSUFFICIENT_STOCK" }

    @Test(
        "equal requests under one key at two servers: all the same refusal with the same order, all but one replayed",
        arguments: ["0s", "1s"]
    )
    func oneKey(memory: String) async throws {
        try await TestBed.run(servers: 2, stock: [1: 0], settings: ["SOLD_OUT_MEMORY": memory, "PERSIST_REJECTED": "true"]) { bed in
            for round in 0..<5 {
                let answers = try await withThrowingTaskGroup(of: TestBed.Answer.self) { group in
                    for index in 0..<8 { group.addTask { try await bed.place(1, key: "round \(round)", server: index % 2) } }
                    return try await group.reduce(into: [TestBed.Answer]()) { $0.append($1) }
                }
                #expect(answers.allSatisfy(isRefusal), "\(answers.map { ($0.status, $0.json) })")
                #expect(Set(answers.map { $0.refusedID }).count == 1)
                #expect(answers.filter(\.isReplayed).count == 7)
                let later = try await bed.place(1, key: "round \(round)")
                #expect(isRefusal(later))
                #expect(later.isReplayed)
                #expect(later.refusedID == answers[0].refusedID)
                let shown = try await bed.send(.GET, "/orders/\(try later.refusedOrder)")
                #expect(shown["status"] == "FAILED")
                #expect(shown["failReason"] == "INSUFFICIENT_STOCK")
            }
            #expect(try await bed.count("select count(*) from orders") == 5)
        }
    }

    /// Which of them the memory answers is chance; what each of them says is not.
    @Test(
        "equal requests under one key, where refusals are kept as it comes: the same refusal for all, and at most one order",
        arguments: ["0s", "1s"]
    )
    func oneKeyByDefault(memory: String) async throws {
        try await TestBed.run(servers: 2, stock: [1: 0], settings: ["SOLD_OUT_MEMORY": memory]) { bed in
            for round in 0..<5 {
                let answers = try await withThrowingTaskGroup(of: TestBed.Answer.self) { group in
                    for index in 0..<8 { group.addTask { try await bed.place(1, key: "round \(round)", server: index % 2) } }
                    return try await group.reduce(into: [TestBed.Answer]()) { $0.append($1) }
                }
                #expect(answers.allSatisfy(isRefusal), "\(answers.map { ($0.status, $0.json) })")
                for name in ["error", "message"] { #expect(Set(answers.map { "\($0[name])" }).count == 1) }
                #expect(Set(answers.map { String(describing: $0["details"]["productId"]) }).count == 1)
                let named = Set(answers.compactMap(\.refusedID))
                #expect(named.count <= 1)
                let sql = "select count(*) from orders where idempotency_key = 'round \(round)'"
                #expect(try await bed.count(sql) == Int64(named.count))
                // Without the memory each of them finds the order of the first.
                if memory == "0s" { #expect(answers.allSatisfy { $0.refusedID != nil }) }
            }
        }
    }

    @Test("without a key: each is refused, and those that name an order are the orders that there are")
    func withoutKey() async throws {
        try await TestBed.run(servers: 2, stock: [1: 0], adjust: TestBed.longMemory) { bed in
            let first = [try await bed.place(1, server: 0), try await bed.place(1, server: 1)]
            let rest = try await withThrowingTaskGroup(of: TestBed.Answer.self) { group in
                for index in 0..<60 { group.addTask { try await bed.place(1, server: index % 2) } }
                return try await group.reduce(into: [TestBed.Answer]()) { $0.append($1) }
            }
            let answers = first + rest
            #expect(answers.allSatisfy(isRefusal))
            let named = answers.compactMap { try? $0.refusedOrder }
            #expect(Set(named).count == named.count)
            #expect(try await bed.count("select count(*) from orders where status = 'FAILED'") == Int64(named.count))
            #expect((2..<30).contains(named.count), "most are turned away from memory: \(named.count)")
        }
    }

    @Test(
        "a rush for a sold-out product makes an order a second, not one for each end of the memory; what comes back is sold",
        arguments: [true, false]
    )
    func looks(shows: Bool) async throws {
        try await TestBed.run(stock: [1: 0], settings: ["SOLD_OUT_MEMORY": "20ms"]) { bed in
            bed.product.state.withLock { $0.shownStatus = shows ? "ACTIVE" : "DISCONTINUED" }
            let began = ContinuousClock.now
            // At least so many ends of the memory are met.
            while bed.product.state.withLock({ $0.looks }) < 20, ContinuousClock.now < began + .seconds(60) {
                #expect(isRefusal(try await bed.place(1)))
            }
            let seconds = (ContinuousClock.now - began).components.seconds
            let orders = try await bed.count("select count(*) from orders")
            // A product that a look does not show on sale is the orders' to find out about.
            if shows { #expect((1...seconds + 2).contains(orders)) } else { #expect(orders >= 20) }
            bed.product.state.withLock { $0.stock[1] = 1 }
            var answer = try await bed.place(1)
            while isRefusal(answer), ContinuousClock.now < began + .seconds(120) { answer = try await bed.place(1) }
            #expect(answer["status"] == "CONFIRMED")
            #expect(bed.product.stock(1) == 0)
        }
    }

    @Test("a rush of new keys for a sold-out product is refused by few look-ups; a repeat among them gets its order, another payload none")
    func rushOfKeys() async throws {
        try await TestBed.run(stock: [1: 3], adjust: TestBed.longMemory) { bed in
            let mine = try await bed.place(3, key: "mine")
            #expect(mine["status"] == "CONFIRMED")
            // It is refused with a row of its own, and is remembered from then on.
            #expect(isRefusal(try await bed.place(1)))
            let rows = try await bed.count("select count(*) from orders")
            let answers = try await withThrowingTaskGroup(of: (Int, TestBed.Answer).self) { group in
                for index in 0..<240 {
                    group.addTask {
                        switch index % 8 {
                        case 0: (0, try await bed.place(3, key: "mine"))
                        case 1: (1, try await bed.place(4, key: "mine"))
                        case 2: (2, try await bed.place(3, buyer: "u-002", key: "mine"))
                        default: (3, try await bed.place(1, key: "new \(index)"))
                        }
                    }
                }
                return try await group.reduce(into: [(Int, TestBed.Answer)]()) { $0.append($1) }
            }
            for (kind, answer) in answers {
                switch kind {
                case 0: #expect(answer.status == 200 && answer.isReplayed && answer.id == mine.id, "\(answer)")
                case 1: #expect(answer.status == 422 && answer["error"] == "KEY_REUSED", "\(answer)")
                default: #expect(isRefusal(answer) && answer.refusedID == nil && !answer.isReplayed, "\(answer)")
                }
            }
            #expect(try await bed.count("select count(*) from orders") == rows)
            #expect(bed.product.stock(1) == 0)
            try await bed.wait(metric: "stockgate_orders_turned_away_total 180")
        }
    }

    @Test("where the keys cannot be looked up, a keyed request for a sold-out product is not told that it is sold out")
    func keysUnknown() async throws {
        try await TestBed.run(stock: [1: 0], adjust: TestBed.longMemory) { bed in
            #expect(isRefusal(try await bed.place(1)))
            _ = try await bed.pool.query("alter table orders rename column idempotency_key to moved")
            let answer = try await bed.place(1, key: "k")
            #expect(answer.status == 503 && answer["error"] == "UNAVAILABLE", "\(answer)")
            _ = try await bed.pool.query("alter table orders rename column moved to idempotency_key")
            #expect(isRefusal(try await bed.place(1, key: "k")))
        }
    }

    @Test("PERSIST_REJECTED: every refusal names an order of its own")
    func persisted() async throws {
        try await TestBed.run(stock: [1: 0], settings: ["PERSIST_REJECTED": "true"], adjust: TestBed.longMemory) { bed in
            var named: Set<Int64> = []
            for path in ["/orders", "/v1/orders"] {
                for _ in 0..<5 { named.insert(try await bed.place(1, path: path).refusedOrder) }
            }
            let body = #"{"productId":"CATALOG-002","qty":2,"unitPrice":900}"#
            let user = try await bed.send(.POST, "/u-9/orders", body, headers: ["idempotency-key": "k"])
            #expect(isRefusal(user))
            named.insert(try user.refusedOrder)
            let again = try await bed.send(.POST, "/u-9/orders", body, headers: ["idempotency-key": "k"])
            #expect(isRefusal(again) && again.isReplayed)
            #expect(again.refusedID == user.refusedID)
            #expect(named.count == 11)
            #expect(try await bed.count("select count(*) from orders where status = 'FAILED'") == 11)
            #expect(bed.product.seen.count == 1)
        }
    }

    @Test("the hot path and the router answer the same, first and repeated", arguments: ["0s", "1s"])
    func bothWays(memory: String) async throws {
        try await TestBed.run(stock: [1: 0], settings: ["SOLD_OUT_MEMORY": memory, "PERSIST_REJECTED": "true"]) { bed in
            for headers in [HTTPHeaders(), ["accept-language": "ko"], ["accept": "application/problem+json"]] {
                func both(_ key: String) async throws -> (hot: TestBed.Answer, router: TestBed.Answer) {
                    let hot = try await bed.place(1, key: "hot" + key, headers: headers)
                    // Any preference is the router's to judge.
                    var preferring = headers
                    preferring.add(name: "prefer", value: "handling=strict")
                    return (hot, try await bed.place(1, key: "router" + key, headers: preferring))
                }
                let key = "\(headers.first(name: "accept") ?? "")\(headers.first(name: "accept-language") ?? "")"
                for isReplay in [false, true] {
                    let (hot, router) = try await both(key)
                    for name in ["error", "message", "type", "title", "status", "detail"] { #expect(hot[name] == router[name], "\(name)") }
                    #expect(hot.status == 400 && router.status == 400)
                    #expect(hot["details"]["productId"] == router["details"]["productId"])
                    #expect(hot.refusedID != router.refusedID)
                    #expect(hot.isReplayed == isReplay && router.isReplayed == isReplay)
                    for name in ["content-type", "content-language", "vary", "cache-control"] {
                        #expect(hot.headers.first(name: name) == router.headers.first(name: name), "\(name)")
                        #expect(hot.headers.contains(name: name), "\(name)")
                    }
                }
            }
        }
    }

    @Test("other reasons stay the FAILED order with 200, and 201 under a user")
    func otherReasons() async throws {
        try await TestBed.run { bed in
            for (status, code) in [(404, "PRODUCT_NOT_FOUND"), (400, "INVALID_STATE")] {
                bed.product.script(.items(status, code), .items(status, code), .items(status, code))
                let hot = try await bed.place(1, key: code)
                #expect(hot.status == 200)
                #expect(hot["status"] == "FAILED")
                #expect(hot["failReason"] == .string(code))
                let router = try await bed.place(1, headers: ["prefer": "handling=strict"])
                #expect(router.status == 200)
                #expect(router["failReason"] == .string(code))
                let user = try await bed.send(.POST, "/u-9/orders", #"{"productId":"1","qty":2,"unitPrice":900}"#)
                #expect(user.status == 201)
                #expect(user["status"] == "FAILED")
                let again = try await bed.place(1, key: code)
                #expect(again.status == 200 && again.isReplayed)
                #expect(again["id"] == hot["id"])
            }
        }
    }
}

/// The same over the broker.
extension OutboxTests {
    @Test("a repeat of an accepted order that failed for want of stock gets that order; POST /orders says that it is sold out")
    func acceptedAndFailed() async throws {
        try await run { bed, _, results in
            let made = try await bed.place(1, key: "k", path: "/v2/orders")
            let id = try made.orderID
            results.put(result("REFUSED", id, reason: #""INSUFFICIENT_STOCK""#))
            try await bed.wait("select count(*) from orders where status = 'FAILED'", for: 1)
            for headers in [HTTPHeaders(), ["prefer": "handling=strict"]] {
                let again = try await bed.place(1, key: "k", path: "/v2/orders", headers: headers)
                #expect(again.status == 200 && again.isReplayed)
                #expect(again["status"] == "FAILED")
                #expect(again.id == id)
            }
            let synchronous = try await bed.place(1, key: "k")
            #expect(synchronous.status == 400 && synchronous.isReplayed)
            #expect(synchronous.refusedID == id)
        }
    }

    @Test("PERSIST_REJECTED: known to be sold out, an order is refused at once with the one it made, repeated likewise")
    func rejectedAtOnce() async throws {
        try await run(settings: ["PERSIST_REJECTED": "true"], stock: [1: 0], adjust: TestBed.longMemory) { bed, publisher, _ in
            _ = try await bed.place(1)
            for headers in [HTTPHeaders(), ["prefer": "handling=strict"]] {
                let key = "k\(headers.count)"
                let first = try await bed.place(1, key: key, path: "/v2/orders", headers: headers)
                #expect(first.status == 400)
                #expect(!first.isReplayed)
                let again = try await bed.place(1, key: key, path: "/v2/orders", headers: headers)
                #expect(again.status == 400 && again.isReplayed)
                #expect(again.refusedID == first.refusedID)
            }
            #expect(publisher.commands.isEmpty)
        }
    }
}
