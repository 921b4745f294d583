import MessageBroker
import NIOHTTP1
import ServerKit
import PrivateServers
import StockContract
import StrictJSON
import Testing

@testable import OrderServer

@Suite("Orders over a real broker", .serialized, .timeLimit(.minutes(10)))
struct MessagingBrokerTests {
    @Test("a command reaches its queue, and a result from the other side makes the order CONFIRMED")
    func roundTrip() async throws {
        let broker = try await PrivateRabbitMQ.onThread { try PrivateRabbitMQ.start() }
        defer { broker.stop() }
        try await TestBed.run(settings: ["AMQP_URL": broker.url]) { bed in
            let made = try await bed.send(.POST, "/v2/orders", #"{"productId":1,"quantity":3}"#)
            #expect(made.status == 202)
            guard case .int(let id) = made["id"] else { throw TestBed.Failure(description: "no id") }
            let configuration = try BrokerConfiguration(url: broker.url)
            let commands = try Consumer(configuration: configuration, topology: .stock, queue: StockGateTopology.decreaseQueue)
            let command = try #require(try await commands.nextBatch(max: 1, wait: .seconds(20)).first)
            #expect(command.headers["attempt"] == .integer(1))
            #expect(try JSONDocument(command.body).value["productId"] == 1)
            commands.acknowledge([command])
            let body =
                #"{"version":1,"type":"stock.result","productId":1,"results":[{"orderId":\#(id),"key":"DEC-\#(id)","outcome":"COMMITTED"}]}"#
            let publisher = try Publisher(configuration: configuration, topology: .stock)
            try await publisher.waitUntilConnected(within: .seconds(60))
            let result = OutgoingMessage(
                exchange: StockGateTopology.resultsExchange,
                routingKey: StockGateTopology.resultRoutingKey,
                body: Array(body.utf8)
            )
            #expect(try await publisher.publish([result, result]) == [.confirmed, .confirmed])
            try await bed.wait("select count(*) from orders where status = 'CONFIRMED' and version = 2", for: 1)
            try await bed.wait("select count(*) from outbox where status <> 'SENT'", for: 0)
            await commands.shutdown()
            await publisher.shutdown()
        }
    }
}
