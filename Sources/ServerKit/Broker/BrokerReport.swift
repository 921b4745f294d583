public import Logging
public import MessageBroker
public import ServerMetrics

extension BrokerNews.Item {
    /// Writes this piece of news as one line.
    public func log(_ logger: Logger) {
        logger.log(level: isTrouble ? .warning : .notice, "\(text)", metadata: why.map { ["why": "\($0)"] })
    }
}

extension MetricsRegistry {
    /// Registers what is shown of a server's connections to the broker.
    /// - Parameters:
    ///   - label: the label whose value names a connection
    ///   - snapshots: the state of each connection, by its name
    public func register(broker label: String, _ snapshots: @escaping @Sendable () -> [(name: String, snapshot: BrokerSnapshot)]) {
        collector("stockgate_broker_connected", help: "1 while the connection to the broker works", kind: .gauge) {
            snapshots().map { .init(labels: [(label, $0)], $1.isConnected ? 1 : 0) }
        }
        collector("stockgate_broker_node", help: "1 for the node of the broker that a working connection leads to", kind: .gauge) {
            snapshots().compactMap { name, snapshot in
                guard snapshot.isConnected, let address = snapshot.address else { return nil }
                return .init(labels: [(label, name), ("node", "\(address)")], 1)
            }
        }
        collector("stockgate_broker_failed_connects_total", help: "Attempts to connect to the broker that failed", kind: .counter) {
            snapshots().map { .init(labels: [(label, $0)], Double($1.failedConnects)) }
        }
        let refused = "1 where the broker refuses what is published, by exchange and routing key"
        collector("stockgate_broker_refused", help: refused, kind: .gauge) {
            snapshots().flatMap { name, snapshot in
                snapshot.refusedRoutes.map { .init(labels: [(label, name), ("route", $0)], 1) }
            }
        }
        collector("stockgate_broker_reconnects_total", help: "Connections to the broker after the first", kind: .counter) {
            snapshots().map { .init(labels: [(label, $0)], Double($1.reconnects)) }
        }
    }
}
