import Eventually
import Logging
import MessageBroker
import PostgresClient
import ServerKit
import PrivateServers
import ServerMetrics
import StockContract
import StrictJSON
import Testing

@testable import OrderServer

/// A replica over a real stream.
@Suite("Follow: over RabbitMQ", .serialized, .timeLimit(.minutes(10)))
struct FollowBrokerTests {
    @Test("it catches up from the beginning, goes on behind its position, and survives the broker's end")
    func follow() async throws {
        try await with { broker, pool, url in
            let publisher = try Publisher(configuration: url, topology: .events)
            try await publisher.waitUntilConnected(within: .seconds(60))
            broker.noteDeclared()

            try await publish(publisher, 1...50)
            try await following(pool, url) { figures in
                try await wait(figures) { $0.hasCaughtUp && $0.position.last == 49 }
                #expect(figures.applied.value == 50)
            }
            try await publish(publisher, 51...60)
            try await following(pool, url) { figures in
                try await wait(figures) { $0.position.last == 59 }
                #expect(figures.messages.value == 10)
                try await broker.settle()
                try await PrivateRabbitMQ.onThread { try broker.kill() }
                try await wait(figures) { _ in !figures.isConnected }
                try await PrivateRabbitMQ.onThread { try broker.restart() }
                try await publisher.waitUntilConnected(within: .seconds(60))
                try await publish(publisher, 61...70)
                try await wait(figures) { $0.position.last == 69 }
                #expect(figures.snapshot().position.missed == 0)
            }
            #expect(try await pool.query("select count(*) from orders where status = 'CONFIRMED'").one().decode(0, as: Int64.self) == 70)
            await publisher.shutdown()
        }
    }

    @Test("a stream deleted and declared again is not noticed; without its position the replica reads it from its beginning")
    func declaredAgain() async throws {
        try await with { broker, pool, url in
            let first = try Publisher(configuration: url, topology: .events)
            try await first.waitUntilConnected(within: .seconds(60))
            try await publish(first, 1...50)
            try await following(pool, url) { figures in try await wait(figures) { $0.position.last == 49 } }
            await first.shutdown()

            try await PrivateRabbitMQ.onThread { try broker.control(["delete_queue", StockGateTopology.orderEventsStream]) }
            let second = try Publisher(configuration: url, topology: .events)
            try await second.waitUntilConnected(within: .seconds(60))
            try await publish(second, 51...60)
            try await following(pool, url) { figures in
                try await wait(figures) { $0.hasCaughtUp }
                #expect(figures.applied.value == 0 && figures.snapshot().position.last == 49)
            }
            _ = try await pool.query("delete from follow_position")
            try await following(pool, url) { figures in try await wait(figures) { $0.position.last == 9 } }
            #expect(try await pool.query("select count(*) from orders where status = 'CONFIRMED'").one().decode(0, as: Int64.self) == 60)
            await second.shutdown()
        }
    }

    /// A broker and an empty replica, each test's own.
    private func with(_ body: (PrivateRabbitMQ, PostgresPool, BrokerConfiguration) async throws -> Void) async throws {
        let broker = try await PrivateRabbitMQ.onThread { try PrivateRabbitMQ.start() }
        defer { broker.stop() }
        let postgres = try PrivatePostgres.start(fsync: false)
        let configuration = try PostgresConfiguration.patient(postgres.url)
        _ = try await Migrator(configuration: configuration).apply(OrderStore.migrations)
        _ = try await Migrator(configuration: configuration, table: FollowStore.migrationsTable).apply(FollowStore.migrations)
        let pool = PostgresPool(configuration: configuration, maximumConnections: 2)
        try await body(broker, pool, BrokerConfiguration(url: broker.url))
        await pool.shutdown()
    }

    private func following(_ pool: PostgresPool, _ url: BrokerConfiguration, _ body: (FollowMetrics) async throws -> Void) async throws {
        let figures = FollowMetrics(MetricsRegistry())
        let service = FollowService(
            store: FollowStore(pool: pool, stream: OrderFollowerParts.stream),
            changes: OrderWatch(maximumWaiters: 1) { _ in [] },
            metrics: figures,
            logger: Logger(label: "follower") { _ in SwiftLogNoOpLogHandler() },
            open: { try BrokerEventSource(url, start: $0) }
        )
        let task = Task { await service.follow() }
        do {
            try await body(figures)
        } catch {
            task.cancel()
            await task.value
            throw error
        }
        task.cancel()
        await task.value
    }

    private func publish(_ publisher: Publisher, _ ids: ClosedRange<Int64>) async throws {
        let messages = ids.map { id in
            var json = JSONWriter()
            json.object { json in
                json.member("version", 1)
                json.member("type", "order.confirmed")
                json.member("time", Timestamp.now)
                json.array("orders", [id]) { json, id in
                    json.object { json in
                        Order.sample(id, .confirmed).writeMembers(to: &json)
                        json.member("version", 2)
                    }
                }
            }
            return OutgoingMessage(
                exchange: StockGateTopology.orderEventsExchange,
                routingKey: OrderEvent.Kind.confirmed.rawValue,
                body: json.bytes
            )
        }
        let outcomes = try await publisher.publish(messages)
        #expect(outcomes.allSatisfy { $0 == .confirmed })
    }

    private func wait(_ figures: FollowMetrics, until isTrue: (FollowMetrics.Snapshot) -> Bool) async throws {
        try await eventually("other figures than \(figures.snapshot())") { isTrue(figures.snapshot()) }
    }
}
