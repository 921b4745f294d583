import Logging
import MessageBroker
import ServerKit
import StockContract

/// Both connections to the broker, which begin to connect when they are made.
struct BrokerConnections {
    let source: any CommandSource
    let sink: any ResultSink

    init(source: any CommandSource, sink: any ResultSink) {
        self.source = source
        self.sink = sink
    }

    /// Whatever the broker says, sales over HTTP begin without it: the connections go on trying, and health and log say why.
    init(_ settings: CommandConfiguration, _ logger: Logger) throws {
        let journal = BrokerJournal(ends: ["commands", "results"]) { news in
            logger.log(level: news.isTrouble ? .warning : .notice, "\(news.text)", metadata: news.why.map { ["why": "\($0)"] })
        }
        self.source = try Consumer(
            configuration: settings.broker,
            topology: .stock,
            queue: StockGateTopology.decreaseQueue,
            prefetch: settings.prefetch,
            name: "commands",
            onChange: journal.observer(of: "commands")
        )
        self.sink = try Publisher(
            configuration: settings.broker,
            topology: .stock,
            name: "results",
            onChange: journal.observer(of: "results")
        )
    }
}
