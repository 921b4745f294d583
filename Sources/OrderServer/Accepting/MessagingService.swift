// Stop: first the result consumer, then the relays after their present batch, then the broker's connections.

import Logging
import MessageBroker
import PostgresClient
import ServerKit
import ServerMetrics
import ServiceLifecycle

/// Runs everything that uses the broker: the relays, the result consumer, and the listener for other servers' messages.
struct MessagingService: Service, CustomStringConvertible {
    let endpoints: MessageEndpoints
    let relays: [OutboxRelay]
    let consumer: ResultConsumer
    let postgres: PostgresConfiguration
    let metrics: MessagingMetrics
    let logger: Logger
    /// Opens once the tables exist.
    private let prepared: PreparedLatch

    var description: String { "messaging" }

    init(
        endpoints: MessageEndpoints,
        relays: [OutboxRelay],
        consumer: ResultConsumer,
        postgres: PostgresConfiguration,
        metrics: MessagingMetrics,
        prepared: PreparedLatch,
        logger: Logger
    ) {
        self.endpoints = endpoints
        self.relays = relays
        self.consumer = consumer
        self.postgres = postgres
        self.metrics = metrics
        self.prepared = prepared
        self.logger = logger
    }

    func run() async throws {
        try? await cancelWhenGracefulShutdown {
            await prepared.wait()
            if Task.isCancelled { return }
            for relay in relays { relay.start() }
            // Behind a pooler nobody listens: the relays look every `OUTBOX_POLL` anyway, which is then how they find what another server left.
            guard postgres.pooler == .none else { return await consumer.run() }
            let listener = try PostgresListener(configuration: postgres, channels: [OutboxChannel.name]) { [metrics] in
                metrics.droppedNotifications.add()
            }
            await withTaskGroup(of: Void.self) { group in
                group.addTask { await consumer.run() }
                // Each event, including `listening`, may mean that there are rows to publish.
                group.addTask {
                    for await _ in listener.events {
                        for relay in relays { relay.wake() }
                    }
                }
                await group.waitForAll()
            }
            listener.shutdown()
        }
        for relay in relays { await relay.shutdown() }
        await consumer.shutdown()
        await endpoints.results.shutdown(within: .seconds(2))
        await endpoints.publisher.shutdown(within: .seconds(2))
        await endpoints.events.shutdown(within: .seconds(2))
    }
}
