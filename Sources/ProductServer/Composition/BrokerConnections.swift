import Logging
import MessageBroker
import StockContract

/// The two connections to the broker. They begin to connect when this value is made.
struct BrokerConnections {
    let source: any CommandSource
    let sink: any ResultSink

    init(source: any CommandSource, sink: any ResultSink) {
        self.source = source
        self.sink = sink
    }

    /// - Parameter cell: the name of this server's cell; nil where there are no cells
    ///
    /// Sales over HTTP do not wait for the broker. The connections go on trying, and health checks and the log say why they fail.
    init(_ settings: CommandConfiguration, cell: String?, _ logger: Logger) throws {
        let journal = BrokerJournal(ends: ["commands", "results"]) { news in
            logger.log(level: news.isTrouble ? .warning : .notice, "\(news.text)", metadata: news.why.map { ["why": "\($0)"] })
        }
        source = try Consumer(
            configuration: settings.broker,
            topology: .productServer(ofCell: cell),
            queue: StockGateTopology.decreaseQueue(ofCell: cell),
            prefetch: settings.prefetch,
            name: "commands",
            onChange: journal.observer(of: "commands")
        )
        sink = try Publisher(
            configuration: settings.broker,
            topology: .productServer(ofCell: cell),
            name: "results",
            onChange: journal.observer(of: "results")
        )
    }
}
