import Logging
import MessageBroker
import ServerKit
import StockContract

/// The order server's connections to the broker.
struct MessageEndpoints: Sendable {
    /// Publishes commands and dead letters.
    var publisher: any MessagePublishing
    /// Publishes events over a connection of its own. Where the stream cannot be declared, only events wait; commands go on.
    var events: any MessagePublishing
    /// Receives stock results.
    var results: any MessageReceiving

    /// Each connection's state by its name in metrics.
    var snapshots: [(name: String, snapshot: BrokerSnapshot)] {
        [("publisher", publisher.snapshot()), ("events", events.snapshot()), ("results", results.snapshot())]
    }

    init(publisher: any MessagePublishing, events: any MessagePublishing, results: any MessageReceiving) {
        self.publisher = publisher
        self.events = events
        self.results = results
    }

    /// Starts to connect to a broker, and goes on trying. The log says when the broker goes away, refuses, and comes back.
    /// - Parameter cells: the cells whose queues are declared, so that commands wait for servers that have never run
    init(_ configuration: BrokerConfiguration, cells: [String?], prefetch: Int, logger: Logger) throws(BrokerError) {
        let journal = BrokerJournal(ends: ["commands", "events", "results"]) { $0.log(logger) }
        publisher = try Publisher(
            configuration: configuration,
            topology: .stock(cells: cells),
            name: "outbox",
            onChange: journal.observer(of: "commands")
        )
        events = try Publisher(
            configuration: configuration,
            topology: .events,
            name: "events",
            onChange: journal.observer(of: "events")
        )
        results = try Consumer(
            configuration: configuration,
            topology: .stock(cells: cells),
            queue: StockGateTopology.resultsQueue,
            prefetch: prefetch,
            name: "results",
            onChange: journal.observer(of: "results")
        )
    }
}
