import Logging
import MessageBroker
import StockContract

/// Publishes messages and says what became of each.
protocol MessagePublishing: Sendable {
    /// One outcome for each message, in order, within a bound of its own.
    func publish(_ messages: [OutgoingMessage]) async throws(BrokerError) -> [PublishOutcome]
    var snapshot: BrokerSnapshot { get }
    func close(within bound: Duration) async
}

/// Gives deliveries of one queue, each of which must be acknowledged.
protocol MessageReceiving: Sendable {
    /// What is there, at most so many; empty if nothing came in time or the task was cancelled.
    func nextBatch(max: Int, wait: Duration) async throws(BrokerError) -> [Delivery]
    @discardableResult func acknowledge(_ deliveries: [Delivery]) -> Int
    @discardableResult func reject(_ delivery: Delivery, requeue: Bool) -> Bool
    var snapshot: BrokerSnapshot { get }
    func close(within bound: Duration) async
}

extension Publisher: MessagePublishing {}
extension Consumer: MessageReceiving {}

/// The ends of the order server at the broker.
struct MessageEndpoints: Sendable {
    /// Of commands and dead letters.
    var publisher: any MessagePublishing
    /// Of events: a connection of its own, so that a stream that cannot be declared holds no command up.
    var events: any MessagePublishing
    /// Of stock results.
    var results: any MessageReceiving

    init(publisher: any MessagePublishing, events: any MessagePublishing, results: any MessageReceiving) {
        self.publisher = publisher
        self.events = events
        self.results = results
    }

    /// Connects to a broker, and goes on trying. The log says when it goes, refuses and comes back.
    init(_ configuration: BrokerConfiguration, prefetch: Int, logger: Logger) throws(BrokerError) {
        let journal = BrokerJournal(ends: ["commands", "events", "results"]) { $0.log(logger) }
        self.publisher = try Publisher(
            configuration: configuration,
            topology: .stock,
            name: "outbox",
            onChange: journal.observer(of: "commands")
        )
        self.events = try Publisher(
            configuration: configuration,
            topology: .events,
            name: "events",
            onChange: journal.observer(of: "events")
        )
        self.results = try Consumer(
            configuration: configuration,
            topology: .stock,
            queue: StockGateTopology.resultsQueue,
            prefetch: prefetch,
            name: "results",
            onChange: journal.observer(of: "results")
        )
    }
}

extension BrokerNews.Item {
    /// One line.
    func log(_ logger: Logger) {
        logger.log(level: self.isTrouble ? .warning : .notice, "\(self.text)", metadata: self.why.map { ["why": "\($0)"] })
    }
}
