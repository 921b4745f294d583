import Eventually
import FlashSaleKit
import Foundation
import NIOHTTP1
import PrivateServers
import SeededRandom
import StockGateProof
import Testing

extension Faults {
    /// The network between the only product server and Redis is slow or breaks; Redis itself runs on.
    ///
    /// A reserve has 200 ms, where it has 50 in a shop: a busy machine with debug builds is no fault of Redis. The breaker stays open for five seconds, so that what happens meanwhile can be looked at.
    @Suite(
        "Faults between product server and Redis",
        .serialized,
        .stackWithProxiedRedis(["GATE_TIMEOUT": "200ms", "BREAKER_WAIT": "5s"]),
        .timeLimit(.minutes(20))
    )
    struct RedisNetwork {}
}

extension Faults.RedisNetwork {
    /// Every answer comes, but after 800 ms: four times what a reserve may take.
    @Test func redisSlow() async throws {
        try await RunningSale.hold("Redis answers after 800 ms", buyers: 8) { sale in
            try await Outage.hold(sale) { try await $0.delay(toClient: .milliseconds(800)) }
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
            let before = try await proxy.snapshot().reset
            var places = 0
            let end = ContinuousClock.now + .seconds(12)
            while places < 3 || places < 40 && ContinuousClock.now < end {
                // A reserve is some 250 bytes: within the next one, or some batches on.
                let known = try await proxy.snapshot().reset
                try await proxy.reset(afterBytes: Int(random.next() % 4_000), .toServer)
                // Longer than the breaker stays open, in case it has opened: then the gate is what is cut.
                try await until("the connections are cut") { try await proxy.snapshot().reset > known }
                places += 1
            }
            #expect(places >= 3)
            try await proxy.heal()
            let cuts = try await proxy.snapshot().reset - before
            try await sale.sells(100, "after the cuts")
            try await sale.breaker(is: ["CLOSED"])
            try await sale.sells(100, "through the gate again")
            await sale.note("\(cuts) connections cut at \(places) places")
        }
    }
}

/// Redis out of reach until the fallback has sold, with somebody who asks for another product all the while.
private enum Outage {
    /// While the breaker is open, decreases are no slower than this, or than twice what they were with Redis on the same machine: less than the 800 ms of a Redis
    /// that is slow.
    private static let slow = Duration.milliseconds(400)

    /// Breaks the network, and heals it again.
    ///
    /// What must hold: the breaker opens after a bounded number of failed calls; while it is open nothing is sent to reserve, and decreases do not take as
    /// long as Redis would; it closes after its recovery when the network heals.
    static func hold(_ sale: RunningSale, _ break: (FaultProxy) async throws -> Void) async throws {
        let proxy = try #require(sale.stack.redisProxy)
        let admin = try await Client(try sale.stack.address("PRODUCT_ADMIN_PORT"))
        let server = try await Client(try sale.stack.address("PRODUCT_PORT"))
        defer { for client in [admin, server] { client.close() } }
        try await sale.breaker(is: ["CLOSED"])
        let product = try await product(on: server)
        let before = try await decrease(product, 1...50, on: server).sorted()

        let failedBefore = try await admin.metric("stockgate_circuit_breaker_calls_total", where: "kind=\"failed\"")
        let openingsBefore = try await admin.metric("stockgate_circuit_breaker_openings_total")
        var began = ContinuousClock.now
        try await `break`(proxy)
        try await sale.breaker(is: ["OPEN"])
        let opened = ContinuousClock.now - began
        // Its window is a hundred calls, of which half must have failed.
        let failed = try await admin.metric("stockgate_circuit_breaker_calls_total", where: "kind=\"failed\"") - failedBefore
        #expect(failed > 0 && failed <= 100, "opened after \(failed) failed calls")
        #expect(try await admin.metric("stockgate_circuit_breaker_openings_total") > openingsBefore)

        let reserves = try await admin.metric("stockgate_reserves_total")
        #expect(reserves >= 20, "the gate was used before")
        let direct = try await admin.metric("stockgate_decreases_direct_total")
        var took: [Duration] = []
        var sent = 0.0
        var order = 50
        var refused: (any Error)?
        // Ten at a time: what counts is sent between two looks at a breaker that was open and did not leave that state. A slow machine needs several of its five seconds.
        try await eventuallyAtLeast(200, "decreases while it is open") {
            let seen = (
                state: await admin.breaker(), reserves: try await admin.metric("stockgate_reserves_total"),
                openings: try await admin.metric("stockgate_circuit_breaker_openings_total")
            )
            guard seen.state == "OPEN" else { return took.count }
            let ten: [Duration]
            do {
                ten = try await decrease(product, (order + 1)...(order + 10), on: server)
            } catch {
                // No decrease may fail meanwhile: this ends the wait.
                refused = error
                return .max
            }
            order += 10
            if await admin.breaker() == "OPEN", try await admin.metric("stockgate_circuit_breaker_openings_total") == seen.openings {
                took += ten
                sent += try await admin.metric("stockgate_reserves_total") - seen.reserves
            }
            return took.count
        }
        if let refused { throw refused }
        took.sort()
        #expect(sent == 0, "no request went to Redis")
        #expect(try await admin.metric("stockgate_decreases_direct_total") >= direct + 200)
        let (usual, now) = (before[before.count * 9 / 10], took[took.count * 9 / 10])
        #expect(now < max(slow, usual * 2), "nine of ten decreases took \(now.text) at most; with Redis it was \(usual.text)")
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
        try await until("the other product's books agree") {
            let audit = try await admin.call(.GET, "/admin/audit/products/\(product)").json
            return audit["drift"] as? Int == 0 && audit["redisPending"] as? Int == 0 && audit["databaseStock"] as? Int == 100_000 - order
        }
        await sale.note(
            "breaker open after \(opened.text) and \(Int(failed)) failed calls, while open \(took.count) decreases: median \(took[took.count / 2].text), "
                + "slowest \(took[took.count - 1].text), "
                + "\(Int(sent)) reserves sent; closed \(closed.text) after the network healed"
        )
    }

    private static func product(on server: Client) async throws -> Int64 {
        let answer = try await server.call(
            .POST,
            "/products",
            json: "{\"name\":\"Beside\",\"price\":1,\"stock\":100000,\"stockStrategy\":\"REDIS_FIRST\"}"
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
            let id = 9_000_000_000_000_000 + Int(product) * 100_000 + order
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
