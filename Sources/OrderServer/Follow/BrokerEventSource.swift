import Logging
import MessageBroker
import StockContract

/// The stream of the orders' events in RabbitMQ.
///
/// A consumer passes over what lies below the offset that it asked for, since RabbitMQ begins with the chunk that holds it. So a stream that was deleted and declared again is
/// not noticed here; docs/messages.md says what to do then.
struct BrokerEventSource: OrderEventSource {
    private let consumer: Consumer

    init(
        _ configuration: BrokerConfiguration,
        start: StreamStart,
        onChange: @escaping @Sendable (ConnectionChange) -> Void = { _ in }
    ) throws {
        let offset: Consumer.StreamOffset =
            switch start {
            case .first: .first
            case .offset(let offset): .offset(offset)
            }
        self.consumer = try Consumer(
            configuration: configuration,
            topology: .events,
            queue: StockGateTopology.orderEventsStream,
            streamOffset: offset,
            name: "order-follow",
            onChange: onChange
        )
    }

    /// Says in the log when the broker goes, refuses and comes back, over all sources that are given it.
    static func observer(_ logger: Logger) -> @Sendable (ConnectionChange) -> Void {
        BrokerJournal(ends: ["stream"]) { $0.log(logger) }.observer(of: "stream")
    }

    func nextBatch(max: Int, wait: Duration) async throws -> StreamedBatch {
        let deliveries = try await self.consumer.nextBatch(max: max, wait: wait)
        // A stream gives each delivery its offset; without one it is none of a stream's.
        let messages = deliveries.compactMap { delivery in
            delivery.streamOffset.map { StreamedMessage(offset: $0, body: delivery.body) }
        }
        return StreamedBatch(messages: messages) { [consumer] in _ = consumer.acknowledge(deliveries) }
    }

    var isConnected: Bool { self.consumer.snapshot.isConnected }
    var reconnects: Int { self.consumer.snapshot.reconnects }
    func close() async { await self.consumer.close() }
}
