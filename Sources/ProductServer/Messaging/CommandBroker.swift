// What the consumer needs of a broker, small enough for a test to provide it.

import MessageBroker

/// The source of commands, which also takes their settlement.
protocol CommandSource: Sendable {
    /// Returns up to `max` deliveries: an empty list after `wait`, or when the task is cancelled. Throws if the source was closed.
    func nextBatch(max: Int, wait: Duration) async throws(BrokerError) -> [Delivery]
    /// Acknowledges deliveries without blocking. Returns how many could still be acknowledged.
    @discardableResult func acknowledge(_ deliveries: [Delivery]) -> Int
    /// Rejects a delivery without blocking. Returns false if it was too late for that.
    @discardableResult func reject(_ delivery: Delivery, requeue: Bool) -> Bool
    /// Closes the source. Unsettled deliveries go back to the queue.
    func shutdown(within bound: Duration) async
    func snapshot() -> BrokerSnapshot
}

protocol ResultSink: Sendable {
    /// Returns one outcome for each message, in order, within the broker's bound. If it throws, nothing was sent.
    func publish(_ messages: [OutgoingMessage]) async throws(BrokerError) -> [PublishOutcome]
    func shutdown(within bound: Duration) async
    func snapshot() -> BrokerSnapshot
}

extension Consumer: CommandSource {}
extension Publisher: ResultSink {}
