// What a program needs of a publisher and of a consumer: small enough for a test to provide it.

/// Publishes messages and reports the outcome of each.
public protocol MessagePublishing: Sendable {
    /// Returns one outcome for each message, in their order, within the publisher's own bound. If it throws, nothing was sent.
    func publish(_ messages: [OutgoingMessage]) async throws(BrokerError) -> [PublishOutcome]
    /// The present state.
    func snapshot() -> BrokerSnapshot
    /// Closes the publisher, within the bound.
    func shutdown(within bound: Duration) async
}

/// Receives deliveries from one queue, and takes their settlement.
public protocol MessageReceiving: Sendable {
    /// The deliveries that are there, at most `max`. Empty if none came within `wait`, or if the task was cancelled. Throws if the consumer was closed.
    func nextBatch(max: Int, wait: Duration) async throws(BrokerError) -> [Delivery]
    /// Acknowledges deliveries without blocking. Returns how many could still be acknowledged.
    @discardableResult func acknowledge(_ deliveries: [Delivery]) -> Int
    /// Rejects a delivery without blocking. Returns false if it was too late for that.
    @discardableResult func reject(_ delivery: Delivery, requeue: Bool) -> Bool
    /// The present state.
    func snapshot() -> BrokerSnapshot
    /// Closes the consumer, within the bound. Unsettled deliveries go back to the queue.
    func shutdown(within bound: Duration) async
}

extension Publisher: MessagePublishing {}
extension Consumer: MessageReceiving {}
