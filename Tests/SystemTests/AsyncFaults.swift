import Eventually
import FlashSaleKit
import Foundation
import MessageBroker
import NIOHTTP1
import PostgresClient
import PrivateServers
import SeededRandom
import StockContract
import StockGateProof
import Testing

extension Faults {
    /// Orders over the broker, with two servers of each kind and a proxy before the broker.
    ///
    /// A message that failed time after time waits two seconds at most, not thirty as in a shop, so that something moves all the while after ten cuts. Recovery over
    /// HTTP does not help for an hour: messages decide, however slow the machine is.
    @Suite(
        "Faults of the path over the broker",
        .serialized,
        .stackWithBroker(instances: 2, ["OUTBOX_BACKOFF_MAX": "2s", "ASYNC_RECOVERY_AGE": "1h"]),
        .timeLimit(.minutes(20))
    )
    struct OverTheBroker {}
}

// MARK: The broker

extension Faults.OverTheBroker {
    @Test func brokerKilled() async throws {
        try await AsyncSale.hold("broker killed -9") { sale in
            try await sale.stack.brokerMayDie()
            try await sale.stack("kill rabbitmq")
            try await sale.accepts(400, "while the broker is dead")
            try await sale.stack("start rabbitmq")
            try await sale.heals()
        }
    }

    /// Connections stay open and nothing answers, for longer than a confirm may take (5 s).
    @Test func brokerPaused() async throws {
        try await AsyncSale.hold("broker paused 7 s") { sale in
            try await sale.stack("pause rabbitmq")
            // The length of the fault.
            try await Task.sleep(for: .seconds(7))
            try await sale.accepts(1, "while the broker is paused")
            await sale.note("\(try await sale.pendingOrders()) orders PENDING when the broker went on")
            try await sale.stack("resume rabbitmq")
            try await sale.heals()
        }
    }

    /// Orders are accepted all the while, and the readiness page says what is missing.
    @Test func brokerAway() async throws {
        try await AsyncSale.hold("broker away 10 s") { sale in
            let server = try await Client(try sale.stack.address("ORDER_PORT"))
            defer { server.close() }
            try await sale.stack.brokerMayDie()
            try await sale.stack("stop rabbitmq")
            let gone = ContinuousClock.now
            let before = try await sale.figures
            try await until("the server knows") {
                try await Self.broker(on: server)?["state"] as? String == "DEGRADED"
            }
            // The length of the fault.
            try await Task.sleep(until: gone + .seconds(10))
            let after = try await sale.figures
            let accepted = after.acceptedOrders.count - before.acceptedOrders.count
            let arrived = after.sent + after.shed - before.sent - before.shed
            #expect(arrived >= 100, "orders arrive all the while")
            #expect(accepted >= arrived * 4 / 5, "of \(arrived) arrivals in ten seconds without a broker \(accepted) were accepted")
            #expect(try await sale.figures.errors == 0)
            var waiting = 0
            // Counted once a second, by a relay that also does other work.
            try await until("the server shows at least half of \(accepted) orders waiting, and is degraded") {
                guard let report = try await Self.broker(on: server), report["state"] as? String == "DEGRADED" else { return false }
                waiting = (report["detail"] as? [String: Any])?["waitingOrders"] as? Int ?? 0
                return waiting >= accepted / 2
            }
            try await sale.stack("start rabbitmq")
            try await sale.heals()
            try await until("the server knows that it is back") {
                let report = try await Self.broker(on: server)
                return report?["state"] as? String == "UP"
                    && ((report?["detail"] as? [String: Any])?["waitingOrders"] as? Int ?? .max) < 1_000
            }
            await sale.note("\(accepted) accepted without it, readyz 200 with broker DEGRADED and \(waiting) orders waiting")
        }
    }

    /// The broker's part of `/readyz?verbose`; nil if the server is not ready.
    private static func broker(on server: Client) async throws -> [String: Any]? {
        let answer = try await server.call(.GET, "/readyz?verbose")
        guard answer.status == 200 else { return nil }
        return (answer.json["dependencies"] as? [String: Any])?["broker"] as? [String: Any]
    }
}

// MARK: The network before the broker

extension Faults.OverTheBroker {
    /// The relay's connection is cut in the middle of what it sends: what of a batch was taken is not known.
    @Test func relayConnectionsReset() async throws {
        try await AsyncSale.hold("relay's connections reset") { sale in
            let cuts = try await Self.cut(try #require(sale.stack.broker).orders, sale, .toServer) {
                try await sale.commands(["NEW", "SENT", "FAILED"], attempts: 2) > 0
            }
            try await sale.heals()
            let again = try await sale.commands(["NEW", "SENT", "FAILED"], attempts: 2)
            #expect(again > 0, "cut in the middle of a batch")
            await sale.note("\(cuts) connections cut, \(again) commands published more than once")
        }
    }

    /// The product servers' connections are cut as commands come in: all that was not acknowledged is delivered again.
    @Test func consumerConnectionsReset() async throws {
        try await AsyncSale.hold("product servers' connections reset") { sale in
            let cuts = try await Self.cut(try #require(sale.stack.broker).products, sale, .toClient) {
                await sale.tally.look()
                return await sale.tally.total("stockgate_commands_redelivered_total") > 0
            }
            try await sale.heals()
            await sale.tally.look()
            #expect(await sale.tally.total("stockgate_commands_redelivered_total") > 0)
            await sale.note("\(cuts) connections cut")
        }
    }

    /// Ten times, each within the next 40 kB; then until one of them has hit what it is for, up to forty times.
    private static func cut(
        _ proxy: FaultProxy,
        _ sale: AsyncSale,
        _ direction: FaultProxy.Direction,
        until hasHit: () async throws -> Bool
    ) async throws -> Int {
        var random = SplitMix64(seed: 11)
        let before = try await proxy.snapshot().reset
        for place in 1...40 {
            if place > 10, try await hasHit() { break }
            let known = try await proxy.snapshot().reset
            try await proxy.reset(afterBytes: Int(random.next() % 40_000), direction)
            try await until("the connections are cut") { try await proxy.snapshot().reset > known }
            try await until("they are made again") { try await proxy.snapshot().connections >= sale.stack.instances }
        }
        try await proxy.heal()
        return try await proxy.snapshot().reset - before
    }
}

// MARK: The servers

extension Faults.OverTheBroker {
    /// Dies at any moment: before its commit, between commit and result, between result and acknowledgement.
    @Test func productServersKilled() async throws {
        try await AsyncSale.hold("product servers killed -9") { sale in
            var duplicates = 0
            var kills = 0
            repeat {
                kills += 1
                let instance = kills % 2 + 1
                if kills <= 4 {
                    try await sale.stack("kill product-\(instance)")
                } else {
                    // No kill at a random moment came between a commit and its acknowledgement: now one comes while the commit is under way.
                    try await sale.holdingTheRow { try await sale.stack("kill product-\(instance)") }
                }
                try await sale.accepts(100, "while product-\(instance) is dead")
                try await sale.stack("start product-\(instance)")
                try await sale.accepts(100, "after product-\(instance) was started")
                await sale.tally.look()
                duplicates = await sale.tally.total("stockgate_command_orders_total", where: "\"duplicate\"")
            } while (kills < 4 || duplicates == 0) && kills < 10
            try await sale.heals()
            #expect(await sale.tally.total("stockgate_commands_redelivered_total") > 0)
            #expect(duplicates > 0, "killed between commit and acknowledgement")
            await sale.note("\(kills) kills")
        }
    }

    /// Dies at any moment: between accept and publish, between confirm and SENT, with results in hand.
    @Test func orderServersKilled() async throws {
        try await AsyncSale.hold("order servers killed -9") { sale in
            var again = 0
            var duplicates = 0
            var kills = 0
            repeat {
                kills += 1
                let instance = kills % 2 + 1
                try await sale.stack("kill order-\(instance)")
                try await sale.accepts(100, "while order-\(instance) is dead")
                try await sale.stack("start order-\(instance)")
                try await sale.accepts(100, "after order-\(instance) was started")
                again = try await sale.commands(["NEW", "SENT", "FAILED"], attempts: 2)
                await sale.tally.look()
                duplicates = await sale.tally.total("stockgate_command_orders_total", where: "\"duplicate\"")
            } while (kills < 4 || duplicates == 0) && kills < 12
            try await sale.heals()
            #expect(again > 0)
            #expect(duplicates > 0, "killed between publishing and SENT")
            await sale.note("\(kills) kills, \(again) commands published more than once")
        }
    }
}

// MARK: Messages

extension Faults.OverTheBroker {
    /// Every message comes twice and more, under load and after the stock is sold out.
    @Test func everyMessageTwice() async throws {
        try await AsyncSale.hold("every message sent again, three times") { sale in
            var again = 0
            for round in 1...3 {
                if round == 3 { try await sale.sellsOut() }
                try await sale.accepts(round == 3 ? 0 : 400, "before all is sent again")
                again += try await sale.sendsAllAgain()
                try await sale.heals()
            }
            try await eventuallyNone("commands are unsent") { try await sale.commands(["NEW", "FAILED"]) }
            try await eventuallyAtLeast(again, "commands have come again") {
                await sale.tally.look()
                return await sale.tally.total("stockgate_commands_republished_total")
            }
            #expect(again > 100)
            #expect(await sale.tally.total("stockgate_command_orders_total", where: "\"duplicate\"") > 0)
            await sale.note("\(again) commands sent again")
        }
    }

    /// Results gather while no order server is there, and come back in reverse order, each twice.
    @Test func resultsReversed() async throws {
        try await AsyncSale.hold("results in reverse order, each twice") { sale in
            let amqp = try await sale.stack.addresses().address("AMQP_URL")
            try await sale.stack("pause product")
            try await sale.accepts(600, "while no product server answers")
            try await sale.stack("kill order")
            try await sale.stack("resume product")
            let commands: Set<String> = Set(
                try await sale.orders.query(
                    """
                    SELECT DISTINCT o.message_id::text FROM orders o JOIN outbox b ON b.id = o.message_id
                    WHERE o.product_id = $1 AND o.status = 'PENDING' AND b.status = 'SENT'
                    """,
                    [.int(sale.product)]
                ).map { try $0.decode(0, as: String.self) }
            )
            let configuration = try BrokerConfiguration(url: amqp)
            let consumer = try Consumer(
                configuration: configuration,
                topology: .stock,
                queue: StockGateTopology.resultsQueue,
                prefetch: 60_000
            )
            let publisher = try Publisher(configuration: configuration, topology: .stock)
            var results: [Delivery] = []
            try await eventuallyNone("of \(commands.count) commands are without a result") {
                results += try await consumer.nextBatch(max: 1_000, wait: .milliseconds(100))
                return commands.subtracting(results.compactMap(\.correlationID)).count
            }
            try await publisher.waitUntilConnected(within: .seconds(60))
            let reversed = results.reversed().flatMap { result in
                let message = OutgoingMessage(
                    exchange: StockGateTopology.resultsExchange,
                    routingKey: StockGateTopology.resultRoutingKey,
                    body: result.body,
                    messageID: result.messageID,
                    correlationID: result.correlationID,
                    type: result.type,
                    timestamp: result.timestamp,
                    headers: result.headers.filter { !$0.key.hasPrefix("x-") }
                )
                return [message, message]
            }
            let outcomes = try await publisher.publish(reversed)
            #expect(outcomes.allSatisfy { $0 == .confirmed })
            #expect(consumer.acknowledge(results) == results.count)
            await consumer.shutdown()
            await publisher.shutdown()
            try await sale.stack("start order")
            try await sale.heals()
            #expect(commands.count >= 10, "\(commands.count) commands make an order worth reversing")
            try await eventuallyAtLeast(600, "second copies have come too") {
                await sale.tally.look()
                return await sale.tally.total("stockgate_order_results_duplicate_total")
            }
            await sale.note("\(results.count) results of \(commands.count) waiting commands")
        }
    }

    /// Both queues are deleted with messages in them. What they held is decided by recovery over HTTP, once it has been without a result for too long.
    @Test func queuesDeleted() async throws {
        let patient = try Stack.current
        let stack = patient.with(["ASYNC_RECOVERY_AGE": "2s"])
        for instance in 1...2 { try await stack.run("restart order-\(instance)") }
        try await AsyncSale.hold("queues deleted") { sale in
            try await sale.stack("pause product")
            try await sale.accepts(300, "while commands gather")
            try await until("the commands are in the queue") { try await sale.commands(["SENT"]) >= 10 }
            let commands = try await sale.pendingOrders()
            try await sale.stack.brokerControl("delete_queue \(StockGateTopology.decreaseQueue)")
            try await sale.stack("resume product")
            try await sale.accepts(300, "after the commands' queue was deleted")
            try await sale.stack("pause order")
            // The product servers answer what is on its way; nobody takes it.
            try await Task.sleep(for: .milliseconds(300))
            let results = try await sale.pendingOrders()
            try await sale.stack.brokerControl("delete_queue \(StockGateTopology.resultsQueue)")
            try await sale.stack("resume order")
            try await sale.accepts(300, "after the results' queue was deleted")
            try await sale.heals()
            await sale.tally.look()
            let recovered = await sale.tally.total("stockgate_orders_recovered_total")
            #expect(recovered > 0, "messages were lost with the queues")
            await sale.note("\(recovered) orders settled by recovery")
            await sale.note("\(commands) orders PENDING when the commands' queue was deleted, \(results) when the results' was")
        }
        for instance in 1...2 { try await patient.run("restart order-\(instance)") }
    }
}
