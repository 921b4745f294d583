import Logging
import MessageBroker
import ServerKit
import StockContract

/// The two connections to the broker. They begin to connect when this value is made.
struct BrokerConnections {
    let source: any MessageReceiving
    let sink: any MessagePublishing

    init(source: any MessageReceiving, sink: any MessagePublishing) {
        self.source = source
        self.sink = sink
    }

    /// Sales over HTTP do not wait for the broker. The connections go on trying, and health checks and the log say why they fail.
    /// - Parameter cell: the name of this server's cell; nil where there are no cells
    init(_ settings: CommandConfiguration, cell: String?, _ logger: Logger) throws {
        let journal = BrokerJournal(ends: ["commands", "results"]) { $0.log(logger) }
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
