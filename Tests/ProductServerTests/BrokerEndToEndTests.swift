import Foundation
import Logging
import MessageBroker
import NIOPosix
import ServerKit
import StockGate
import StockGateTestSupport
import Testing

@testable import ProductServer

/// The consumer on a real broker, which is killed in the middle.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct BrokerEndToEndTests {
    @Test func commandsSurviveTheBrokersDeath() async throws {
        let broker = try await PrivateRabbitMQ.onThread { try PrivateRabbitMQ.start() }
        defer { broker.stop() }
        try await ProductServerFixture.with { server in
            let (messages, size, stock) = (200, 20, 3_000)
            let id = try await server.addProduct(stock: stock)
            let configuration = try BrokerConfiguration(url: broker.url)
            let sender = try Publisher(configuration: configuration, topology: .stock, name: "sender")
            try await sender.waitUntilConnected(within: .seconds(20))
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

            consumer.open()
            let run = Task { try await consumer.run() }
            var answers: [OutgoingMessage] = []
            var answered: Set<String> = []
            var isKilled = false
            var took = Duration.zero
            let deadline = ContinuousClock.now + .seconds(60)
            while answered.count < messages, ContinuousClock.now < deadline {
                let deliveries = try await receiver.nextBatch(max: 64, wait: .milliseconds(200))
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
                }
            }
            let isAnswered = answered == Set((1...messages).map(String.init))
            #expect(
                isAnswered,
                "\(answered.count) answered; restarted in \(took); \(consumer.source.snapshot); \(consumer.sink.snapshot); \(receiver.snapshot)"
            )
            let results = try DecreaseConsumerTests.results(answers)
            let committed = Set(results.filter { $0.outcome == "COMMITTED" }.map(\.order))
            #expect(committed.count == stock && Set(results.map(\.order)).count == messages * size)
            let both = committed.intersection(results.filter { $0.outcome == "REFUSED" }.map(\.order)).count
            #expect(both == 0)
            let sold = try await DecreaseConsumerTests.sold(server, id)
            #expect(sold.rows == Int64(stock) && sold.stock == 0)

            let dead = try Consumer(configuration: configuration, topology: .stock, queue: StockGateTopology.deadQueue, name: "dead")
            let letters = try await dead.nextBatch(max: 10, wait: .seconds(20))
            #expect(letters.first?.headers["reason"] == "VALIDATION_ERROR")
            try await DecreaseConsumerTests.eventually("nothing in hand") { consumer.desk.commandsHeld == 0 }
            run.cancel()
            try await run.value
            await sender.close()
            await receiver.close()
            await dead.close()
        }
    }
}
