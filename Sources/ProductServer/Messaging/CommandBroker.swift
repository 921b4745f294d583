// What the consumer needs of a broker: small enough to be played by a test.

import MessageBroker

/// Where commands come from, and where their deliveries are settled.
protocol CommandSource: Sendable {
    /// 1 to `max` deliveries; none if nothing came within `wait` or the task was cancelled. Throws when closed.
    func nextBatch(max: Int, wait: Duration) async throws(BrokerError) -> [Delivery]
    /// Never blocks. Returns how many could still be acknowledged.
    @discardableResult func acknowledge(_ deliveries: [Delivery]) -> Int
    /// Never blocks. False: too late.
    @discardableResult func reject(_ delivery: Delivery, requeue: Bool) -> Bool
    /// What is not settled goes back to the queue.
    func close(within bound: Duration) async
    var snapshot: BrokerSnapshot { get }
}

/// Where results go.
protocol ResultSink: Sendable {
    /// One outcome a message, in order, within the broker's bound. Throws with nothing sent.
    func publish(_ messages: [OutgoingMessage]) async throws(BrokerError) -> [PublishOutcome]
    func close(within bound: Duration) async
    var snapshot: BrokerSnapshot { get }
}

extension Consumer: CommandSource {}
extension Publisher: ResultSink {}
