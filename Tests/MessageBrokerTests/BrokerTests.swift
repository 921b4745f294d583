import Foundation
import MessageBroker
import PrivateServers
import Synchronization
import Testing

/// The tests with a real broker: one of them, and one test at a time, since some of them take it down.
@Suite("With a broker", .serialized)
struct BrokerTests {}

/// One broker for all tests.
enum SharedBroker {
    private static let started = Result { try PrivateRabbitMQ.start() }

    static var server: PrivateRabbitMQ { get throws { try started.get() } }

    static func configuration(_ change: (inout BrokerConfiguration) -> Void = { _ in }) throws -> BrokerConfiguration {
        var configuration = try BrokerConfiguration(url: try server.url)
        configuration.maximumBackoff = .milliseconds(500)
        // A busy machine must not look like a broker that is away.
        configuration.connectTimeout = .seconds(30)
        configuration.callTimeout = .seconds(30)
        configuration.confirmTimeout = .seconds(60)
        configuration.heartbeat = .seconds(60)
        change(&configuration)
        return configuration
    }
}

/// Names that no other test uses: an exchange, a queue bound to it, and a queue for its dead letters.
struct Names {
    let exchange: String
    let queue: String
    let deadQueue: String
    var topology: Topology

    init(deliveryLimit: Int? = nil, maximumLength: Int? = nil) {
        let name = "test-\(UUID().uuidString.prefix(8))"
        exchange = name
        queue = name
        deadQueue = "\(name).dead"
        topology = Topology(
            exchanges: [.init(exchange, kind: .direct), .init(deadQueue, kind: .fanout)],
            queues: [
                .quorum(queue, deliveryLimit: deliveryLimit, deadLetterExchange: deadQueue, maximumLength: maximumLength),
                .quorum(deadQueue),
            ],
            bindings: [
                .init(exchange: exchange, queue: queue, routingKey: "key"), .init(exchange: deadQueue, queue: deadQueue, routingKey: ""),
            ]
        )
    }

    func message(_ text: String, routingKey: String = "key") -> OutgoingMessage {
        OutgoingMessage(exchange: exchange, routingKey: routingKey, body: Array(text.utf8), messageID: text)
    }

    func publisher(_ change: (inout BrokerConfiguration) -> Void = { _ in }) async throws -> Publisher {
        let publisher = try Publisher(configuration: try SharedBroker.configuration(change), topology: topology)
        try await publisher.waitUntilConnected(within: .seconds(60))
        return publisher
    }

    func consumer(_ queue: String? = nil, prefetch: Int = 512, _ change: (inout BrokerConfiguration) -> Void = { _ in }) async throws
        -> Consumer
    {
        let consumer = try Consumer(
            configuration: try SharedBroker.configuration(change),
            topology: topology,
            queue: queue ?? self.queue,
            prefetch: prefetch
        )
        try await consumer.waitUntilConnected(within: .seconds(60))
        return consumer
    }
}

extension Delivery {
    var text: String { String(decoding: body, as: UTF8.self) }
}

extension Consumer {
    /// Exactly so many deliveries, in batches as they come; fewer after a minute.
    func deliveries(_ count: Int) async throws -> [Delivery] {
        var all: [Delivery] = []
        let end = ContinuousClock.now + .seconds(60)
        while all.count < count, ContinuousClock.now < end { all += try await nextBatch(max: count - all.count, wait: .seconds(1)) }
        return all
    }
}
