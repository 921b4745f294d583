import Logging
import MessageBroker
import ServerKit
import StockContract

/// The stream of the orders' events in RabbitMQ.
///
/// RabbitMQ begins with the chunk that contains the requested offset, so a consumer skips messages below that offset. Therefore this source does not notice a
/// stream that was deleted and declared again; docs/messages.md says what to do then.
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
        consumer = try Consumer(
            configuration: configuration,
            topology: .events,
            queue: StockGateTopology.orderEventsStream,
            streamOffset: offset,
            name: "order-follow",
            onChange: onChange
        )
    }

    /// A function for the connections of any number of sources, which logs when the broker goes away, refuses, and comes back.
    static func observer(_ logger: Logger) -> @Sendable (ConnectionChange) -> Void {
        BrokerJournal(ends: ["stream"]) { $0.log(logger) }.observer(of: "stream")
    }

    func nextBatch(max: Int, wait: Duration) async throws -> StreamedBatch {
        let deliveries = try await consumer.nextBatch(max: max, wait: wait)
        // A stream gives each delivery an offset. A delivery without one comes from a queue, and is passed over.
        let messages = deliveries.compactMap { delivery in
            delivery.streamOffset.map { StreamedMessage(offset: $0, body: delivery.body) }
        }
        return StreamedBatch(messages: messages) { [consumer] in _ = consumer.acknowledge(deliveries) }
    }

    var isConnected: Bool { consumer.snapshot().isConnected }
    var reconnects: Int { consumer.snapshot().reconnects }
    func shutdown() async { await consumer.shutdown() }
}
