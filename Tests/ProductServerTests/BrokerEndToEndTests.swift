import Eventually
import Foundation
import Logging
import MessageBroker
import PostgresClient
import NIOPosix
import ServerKit
import ServerMetrics
import StockContract
import StockGate
import Synchronization
import PrivateServers
import Testing

@testable import ProductServer

/// The consumer on a real broker, which is killed in the middle.
@Suite(.serialized, .timeLimit(.minutes(10)))
struct BrokerEndToEndTests {
    /// Odd messages among good ones, over a real broker: each is a dead letter or a refusal by itself, the good ones are sold, and nothing comes twice.
    @Test func oddMessagesHarmNobody() async throws {
        let broker = try await PrivateRabbitMQ.onThread { try PrivateRabbitMQ.start() }
        defer { broker.stop() }
        try await ProductServerFixture.with { server in
            let id = try await server.addProduct(stock: 1_000)
            let configuration = try BrokerConfiguration(url: broker.url)
            let sender = try Publisher(configuration: configuration, topology: .stock, name: "sender")
            try await sender.waitUntilConnected(within: .seconds(60))
            let dead = try Consumer(configuration: configuration, topology: .stock, queue: StockGateTopology.deadQueue, name: "dead")
            let registry = MetricsRegistry()
            let consumer = DecreaseConsumer(
                source: try Consumer(
                    configuration: configuration,
                    topology: .stock,
                    queue: StockGateTopology.decreaseQueue,
                    prefetch: 64,
                    name: "commands"
                ),
                sink: try Publisher(configuration: configuration, topology: .stock, name: "results"),
                registry: registry,
                eventLoop: MultiThreadedEventLoopGroup.singleton.next(),
                prefetch: 64,
                maximumOrders: 8_192,
                giveUpAfter: .seconds(60),
                stopWithin: .seconds(5),
                prepared: PreparedLatch(isOpen: true),
                logger: Logger(label: "test"),
                decide: DecreaseConsumerTests.decide(server.engine)
            )
            func message(_ body: [UInt8], _ change: (inout OutgoingMessage) -> Void = { _ in }) -> OutgoingMessage {
                var message = OutgoingMessage(
                    exchange: StockGateTopology.commandsExchange,
                    routingKey: StockGateTopology.decreaseRoutingKey,
                    body: body,
                    type: StockCommand.type,
                    headers: ["attempt": 1]
                )
                change(&message)
                return message
            }
            let body = { (number: Int) in Array(DecreaseConsumerTests.command(number, product: id, orders: [number]).utf8) }
            let order = #"[{"orderId":9000,"key":"DEC-9000","quantity":1}]"#
            let texts = [
                "", "{", "[]", "null", "\u{0}", String(repeating: "[", count: 5_000), StockCommandTests.body(version: "\"1\""),
                StockCommandTests.body(version: "9223372036854775808"), StockCommandTests.body(type: "null"),
                StockCommandTests.body(messageID: "7"),
                StockCommandTests.body(messageID: "\"\\u0000\""), StockCommandTests.body(product: "-9223372036854775808", orders: order),
                StockCommandTests.body(product: "{\"id\":{\"id\":1}}", orders: order),
                StockCommandTests.body(time: "\"300000-01-01T00:00:00Z\"", orders: order),
                StockCommandTests.body(time: "1700000000", orders: order), StockCommandTests.body(orders: "{}"),
                StockCommandTests.body(orders: "[]"),
                StockCommandTests.body(orders: "[[\(order)]]"),
                StockCommandTests.body(orders: #"[{"orderId":9001,"key":"DEC-9001","quantity":-1}]"#),
                StockCommandTests.body(orders: #"[{"orderId":9002,"key":"INC-9002","quantity":1}]"#),
                StockCommandTests.body(orders: #"[{"orderId":1e3,"key":"DEC-1000","quantity":1}]"#),
            ]
            var odd = texts.map { message(Array($0.utf8)) }
            odd.append(message([0xFF, 0xFE, 0x7B]))
            odd.append(message(body(8_000).dropLast(3) + [0xC3, 0x28]))
            // Odd about these are only what is around them: they are sold.
            let around: [(inout OutgoingMessage) -> Void] = [
                { $0.contentType = "image/png" }, { $0.headers = ["attempt": "many"] }, { $0.headers = ["attempt": .integer(.max)] },
                { $0.headers = ["x-delivery-count": "1000", "x-death": "yes"] },
                { $0.headers = ["x-death": .list([.table(["count": .integer(.max)])])] },
                { $0.type = "order.created" }, { $0.messageID = String(repeating: "x", count: 250) },
                { $0.headers = ["traceparent": .integer(.min)] },
            ]
            let good = (1...40).map { number in
                number <= around.count ? message(body(number), around[number - 1]) : message(body(number))
            }
            broker.noteDeclared()
            try await broker.settle()
            // An odd one behind every good one.
            var all: [OutgoingMessage] = []
            for (index, one) in good.enumerated() { all += index < odd.count ? [one, odd[index]] : [one] }
            #expect(try await sender.publish(all).allSatisfy { $0 == .confirmed })
            let run = Task { try await consumer.run() }
            try await eventually("all good ones are sold") {
                try await DecreaseConsumerTests.sold(server, id).rows == Int64(good.count)
            }
            var letters: [Delivery] = []
            try await eventually("the odd ones are dead letters") {
                let batch = try await dead.nextBatch(max: 100, wait: .milliseconds(200))
                dead.acknowledge(batch)
                letters += batch
                return letters.count >= odd.count
            }
            #expect(Set(letters.map(\.body)) == Set(odd.map(\.body)) && letters.count == odd.count)
            #expect(letters.allSatisfy { $0.headers["reason"]?.string?.isEmpty == false })
            try await eventually("nothing in hand") { consumer.desk.commandsHeld == 0 }
            let text = String(decoding: registry.exposition(), as: UTF8.self)
            #expect(
                text.contains("stockgate_commands_total \(all.count)\n") && text.contains("stockgate_commands_redelivered_total 0\n"),
                "\(text)"
            )
            run.cancel()
            try await run.value
            await sender.shutdown()
            await dead.shutdown()
        }
    }

    /// Many more commands than the prefetch are for a product whose row somebody's transaction holds, and stand before those of another product.
    @Test func commandsOfALockedProductKeepNoOthersBack() async throws {
        let broker = try await PrivateRabbitMQ.onThread { try PrivateRabbitMQ.start() }
        defer { broker.stop() }
        try await ProductServerFixture.with { server in
            let (commands, prefetch) = (60, 8)
            let locked = try await server.addProduct(stock: 1_000)
            let other = try await server.addProduct(stock: 1_000)
            let configuration = try BrokerConfiguration(url: broker.url)
            let sender = try Publisher(configuration: configuration, topology: .productServer, name: "sender")
            try await sender.waitUntilConnected(within: .seconds(60))
            let dead = try Consumer(configuration: configuration, topology: .stock, queue: StockGateTopology.deadQueue, name: "dead")
            let registry = MetricsRegistry()
            let engine = server.engine
            let consumer = DecreaseConsumer(
                source: try Consumer(
                    configuration: configuration,
                    topology: .productServer,
                    queue: StockGateTopology.decreaseQueue,
                    prefetch: prefetch,
                    name: "commands"
                ),
                sink: try Publisher(configuration: configuration, topology: .productServer, name: "results"),
                registry: registry,
                eventLoop: MultiThreadedEventLoopGroup.singleton.next(),
                prefetch: prefetch,
                maximumOrders: 8_192,
                // Longer than the test: no command makes room by going back to the queue.
                giveUpAfter: .seconds(1_200),
                stopWithin: .seconds(5),
                prepared: PreparedLatch(isOpen: true),
                logger: Logger(label: "test"),
                isLocked: { engine.ledger.lockedProducts.isLocked($0) },
                decide: DecreaseConsumerTests.decide(engine)
            )
            func message(_ number: Int, _ product: Int64) -> OutgoingMessage {
                OutgoingMessage(
                    exchange: StockGateTopology.commandsExchange,
                    routingKey: StockGateTopology.decreaseRoutingKey,
                    body: Array(DecreaseConsumerTests.command(number, product: product, orders: [number]).utf8),
                    messageID: String(number),
                    type: StockCommand.type,
                    headers: ["attempt": 1]
                )
            }
            broker.noteDeclared()
            try await broker.settle()
            let lock = try await RowLock(
                url: server.postgres.url,
                "select 1 from product_stock where product_id = \(locked) for update"
            )
            let all = (1...commands).map { message($0, locked) } + [message(9_000, other)]
            #expect(try await sender.publish(all).allSatisfy { $0 == .confirmed })
            let run = Task { try await consumer.run() }
            try await eventually("the other product's command is decided") {
                try await DecreaseConsumerTests.sold(server, other).rows == 1
            }
            #expect(consumer.metrics.aside.value >= UInt64(commands - prefetch))
            #expect(consumer.metrics.blocked.load(ordering: .relaxed) <= prefetch / 4)
            #expect(try await DecreaseConsumerTests.sold(server, locked).rows == 0)
            // Some have come back by now, and were set aside once more.
            try await eventually("they come again and again") { consumer.metrics.aside.value > UInt64(2 * commands) }
            await lock.end()
            try await eventually("all are sold") {
                try await DecreaseConsumerTests.sold(server, locked).rows == Int64(commands)
            }
            try await eventually("nothing in hand") { consumer.desk.commandsHeld == 0 }
            let sold = try await DecreaseConsumerTests.sold(server, locked)
            #expect(sold.units == Int64(commands) && sold.stock == 1_000 - Int64(commands))
            #expect(consumer.metrics.blocked.load(ordering: .relaxed) == 0)
            let letters = try await dead.nextBatch(max: 10, wait: .milliseconds(200))
            #expect(letters.isEmpty)
            #expect(
                String(decoding: registry.exposition(), as: UTF8.self).contains(
                    "stockgate_commands_requeued_total{reason=\"undecided\"} 0\n"
                )
            )
            run.cancel()
            try await run.value
            await sender.shutdown()
            await dead.shutdown()
        }
    }

    @Test func commandsSurviveTheBrokersDeath() async throws {
        let broker = try await PrivateRabbitMQ.onThread { try PrivateRabbitMQ.start() }
        defer { broker.stop() }
        try await ProductServerFixture.with { server in
            let (messages, size, stock) = (200, 20, 3_000)
            let id = try await server.addProduct(stock: stock)
            let configuration = try BrokerConfiguration(url: broker.url)
            let sender = try Publisher(configuration: configuration, topology: .stock, name: "sender")
            try await sender.waitUntilConnected(within: .seconds(60))
            let receiver = try Consumer(
                configuration: configuration,
                topology: .stock,
                queue: StockGateTopology.resultsQueue,
                name: "receiver"
            )
            let registry = MetricsRegistry()
            let consumer = DecreaseConsumer(
                source: try Consumer(
                    configuration: configuration,
                    topology: .stock,
                    queue: StockGateTopology.decreaseQueue,
                    prefetch: 16,
                    name: "commands"
                ),
                sink: try Publisher(configuration: configuration, topology: .stock, name: "results"),
                registry: registry,
                eventLoop: MultiThreadedEventLoopGroup.singleton.next(),
                prefetch: 16,
                maximumOrders: 8_192,
                giveUpAfter: .seconds(60),
                stopWithin: .seconds(5),
                prepared: PreparedLatch(isOpen: true),
                logger: Logger(label: "test"),
                decide: DecreaseConsumerTests.decide(server.engine)
            )
            let commands = (0..<messages).map { number in
                let orders = (number * size + 1)...((number + 1) * size)
                let body = DecreaseConsumerTests.command(number + 1, product: id, orders: orders)
                return OutgoingMessage(
                    exchange: StockGateTopology.commandsExchange,
                    routingKey: StockGateTopology.decreaseRoutingKey,
                    body: Array(body.utf8),
                    messageID: String(number + 1),
                    type: StockCommand.type,
                    headers: ["attempt": 1]
                )
            }
            let poison = OutgoingMessage(
                exchange: StockGateTopology.commandsExchange,
                routingKey: StockGateTopology.decreaseRoutingKey,
                body: Array("{".utf8)
            )
            broker.noteDeclared()
            try await broker.settle()
            let outcomes = try await sender.publish(commands + [poison])
            #expect(outcomes.allSatisfy { $0 == .confirmed })

            let run = Task { try await consumer.run() }
            var answers: [OutgoingMessage] = []
            var answered: Set<String> = []
            var isKilled = false
            var took = Duration.zero
            // Ends when nothing has come for a minute; a restart of the broker is no part of that.
            var deadline = ContinuousClock.now + .seconds(60)
            while answered.count < messages, ContinuousClock.now < deadline {
                let deliveries = try await receiver.nextBatch(max: 64, wait: .milliseconds(200))
                if !deliveries.isEmpty { deadline = ContinuousClock.now + .seconds(60) }
                for delivery in deliveries {
                    answered.insert(delivery.correlationID ?? "none")
                    answers.append(OutgoingMessage(exchange: "", routingKey: "", body: delivery.body))
                }
                receiver.acknowledge(deliveries)
                if !isKilled, answered.count > messages / 10 {
                    isKilled = true
                    let began = ContinuousClock.now
                    try await PrivateRabbitMQ.onThread { try broker.restart() }
                    took = ContinuousClock.now - began
                    deadline = ContinuousClock.now + .seconds(60)
                }
            }
            let isAnswered = answered == Set((1...messages).map(String.init))
            #expect(
                isAnswered,
                "\(answered.count) answered; restarted in \(took); \(consumer.source.snapshot()); \(consumer.sink.snapshot()); \(receiver.snapshot())"
            )
            let results = try DecreaseConsumerTests.results(answers)
            let committed = Set(results.filter { $0.outcome == "COMMITTED" }.map(\.order))
            #expect(committed.count == stock && Set(results.map(\.order)).count == messages * size)
            let both = committed.intersection(results.filter { $0.outcome == "REFUSED" }.map(\.order)).count
            #expect(both == 0)
            let sold = try await DecreaseConsumerTests.sold(server, id)
            #expect(sold.rows == Int64(stock) && sold.stock == 0)

            let dead = try Consumer(configuration: configuration, topology: .stock, queue: StockGateTopology.deadQueue, name: "dead")
            var letters: [Delivery] = []
            try await eventually("the odd one is a dead letter") {
                letters += try await dead.nextBatch(max: 10, wait: .milliseconds(200))
                return !letters.isEmpty
            }
            #expect(letters.first?.headers["reason"] == "VALIDATION_ERROR")
            try await eventually("nothing in hand") { consumer.desk.commandsHeld == 0 }
            run.cancel()
            try await run.value
            await sender.shutdown()
            await receiver.shutdown()
            await dead.shutdown()
        }
    }
}
