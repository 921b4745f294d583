import FlashSaleKit
import Foundation
import StockGateTestSupport
import Testing

extension Faults {
    /// The network between the only product server and Redis is slow or breaks; Redis itself runs on.
    ///
    /// A reserve has 50 ms, as in a shop. The breaker stays open for five seconds, so that what happens meanwhile can be looked at.
    @Suite(
        "Faults between product server and Redis",
        .serialized,
        .stackWithProxiedRedis(["GATE_TIMEOUT": "50ms", "BREAKER_WAIT": "5s"]),
        .timeLimit(.minutes(3))
    )
    struct RedisNetwork {}
}

extension Faults.RedisNetwork {
    /// Every answer comes, but after 200 ms: four times what a reserve may take.
    @Test func redisSlow() async throws {
        try await RunningSale.hold("Redis answers after 200 ms", buyers: 8) { sale in
            try await Outage.hold(sale) { try await $0.delay(toClient: .milliseconds(200)) }
        }
    }

    /// Connections are cut and new ones refused.
    @Test func redisRefusesConnections() async throws {
        try await RunningSale.hold("Redis refuses connections", buyers: 8) { sale in
            try await Outage.hold(sale) { proxy in
                try await proxy.refuse()
                try await proxy.reset()
            }
        }
    }

    /// Connections are cut in the middle of what is sent, again and again. What was cut off after Redis had it, is a reservation that nobody knows.
    @Test func redisConnectionsReset() async throws {
        try await RunningSale.hold("Redis connections reset", buyers: 32) { sale in
            let proxy = try #require(sale.stack.redisProxy)
            try await sale.breaker(is: ["CLOSED"])
            var random = SplitMix64(seed: 7)
            let before = try await proxy.figures.reset
            var places = 0
            let end = ContinuousClock.now + .seconds(12)
            while places < 40, ContinuousClock.now < end {
                // A reserve is some 250 bytes: within the next one, or some batches on.
                let known = try await proxy.figures.reset
                try await proxy.reset(afterBytes: Int(random.next() % 4_000), .toServer)
                // Longer than the breaker stays open, in case it has opened: then the gate is what is cut.
                try await until("the connections are cut", within: .seconds(10)) { try await proxy.figures.reset > known }
                places += 1
            }
            #expect(places >= 3)
            try await proxy.heal()
            let cuts = try await proxy.figures.reset - before
            try await sale.sells(100, "after the cuts")
            try await sale.breaker(is: ["CLOSED"])
            try await sale.sells(100, "through the gate again")
            await sale.note("\(cuts) connections cut at \(places) places")
        }
    }
}

/// Redis out of reach until the fallback has sold, with somebody who asks for another product all the while.
private enum Outage {
    /// No decrease takes longer while the breaker is open: less than the 200 ms of a Redis that is slow.
    private static let slowest = Duration.milliseconds(150)

    /// Breaks the network, and heals it again.
    ///
    /// What must hold: the breaker opens after a bounded number of failed calls; while it is open nothing is sent to reserve, and no decrease takes as
    /// long as Redis would; it closes behind its gate when the network heals.
    static func hold(_ sale: RunningSale, _ break: (FaultProxy) async throws -> Void) async throws {
        let proxy = try #require(sale.stack.redisProxy)
        let admin = try await Client(try sale.stack.address("PRODUCT_ADMIN_PORT"))
        let server = try await Client(try sale.stack.address("PRODUCT_PORT"))
        defer { for client in [admin, server] { client.close() } }
        try await sale.breaker(is: ["CLOSED"])
        let product = try await product(on: server)
        try await decrease(product, 1...20, on: server)

        let failedBefore = try await admin.metric("circuit_breaker_calls_total", where: "kind=\"failed\"")
        let openingsBefore = try await admin.metric("circuit_breaker_openings_total")
        var began = ContinuousClock.now
        try await `break`(proxy)
        try await sale.breaker(is: ["OPEN"])
        let opened = ContinuousClock.now - began
        // Its window is a hundred calls, of which half must have failed.
        let failed = try await admin.metric("circuit_breaker_calls_total", where: "kind=\"failed\"") - failedBefore
        #expect(failed > 0 && failed <= 100, "opened after \(failed) failed calls")
        #expect(try await admin.metric("circuit_breaker_openings_total") == openingsBefore + 1)

        let reserves = try await admin.metric("stockgate_reserves_total")
        #expect(reserves >= 20, "the gate was used before")
        let direct = try await admin.metric("stockgate_decreases_direct_total")
        let took = try await decrease(product, 21...220, on: server).sorted()
        let sent = try await admin.metric("stockgate_reserves_total") - reserves
        #expect(await admin.breaker() == "OPEN", "open all the while")
        #expect(sent == 0, "no request went to Redis")
        #expect(try await admin.metric("stockgate_decreases_direct_total") >= direct + 200)
        #expect(took[199] < slowest, "the slowest of 200 decreases took \(took[199].text)")
        try await sale.sells(200, "without Redis")

        began = .now
        try await proxy.heal()
        try await sale.breaker(is: ["CLOSED"])
        let closed = ContinuousClock.now - began
        let events = try await admin.call(.GET, "/admin/circuitbreakerevents/redisStock").text
        for part in ["\"CLOSED_TO_OPEN\"", "\"OPEN_TO_HALF_OPEN\"", "\"RECOVERY_GATE_PASSED\"", "\"HALF_OPEN_TO_CLOSED\""] {
            #expect(events.contains(part), "\(part) in \(events)")
        }
        try await sale.sells(100, "with Redis again")
        #expect(try await admin.metric("stockgate_reserves_total") > reserves, "the gate is used again")
        try await until("the other product's books agree", within: .seconds(10)) {
            let audit = try await admin.call(.GET, "/admin/audit/products/\(product)").json
            return audit["drift"] as? Int == 0 && audit["redisPending"] as? Int == 0 && audit["databaseStock"] as? Int == 1_000 - 220
        }
        await sale.note(
            "breaker open after \(opened.text) and \(Int(failed)) failed calls, while open 200 decreases: median \(took[100].text), slowest \(took[199].text), "
                + "\(Int(sent)) reserves sent; closed \(closed.text) after the network healed"
        )
    }

    private static func product(on server: Client) async throws -> Int64 {
        let answer = try await server.call(
            .POST,
            "/products",
            json: "{\"name\":\"Beside\",\"price\":1,\"stock\":1000,\"stockStrategy\":\"REDIS_FIRST\"}"
        )
        return try #require(answer.id, "\(answer.text)")
    }

    /// One decrease after the other; none may fail.
    /// - Returns: how long each took
    @discardableResult
    private static func decrease(_ product: Int64, _ orders: ClosedRange<Int>, on server: Client) async throws -> [Duration] {
        var took: [Duration] = []
        for order in orders {
            // Order ids that no order server gives.
            let id = 9_000_000_000_000_000 + Int(product) * 1_000 + order
            let began = ContinuousClock.now
            let answer = try await server.call(
                .PATCH,
                "/products/\(product)/stock/decrease-by-order",
                json: "{\"orderId\":\(id),\"quantity\":1}",
                headers: [("Idempotency-Key", "DEC-\(id)")]
            )
            took.append(ContinuousClock.now - began)
            try #require(answer.status == 200, "\(answer.text)")
        }
        return took
    }
}
