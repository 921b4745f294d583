public import Logging
public import PostgresClient
public import ServerMetrics

extension PostgresHosts {
    /// Says in the log, once for each change, at which host of an address with several the sessions are opened, and shows it among the metrics.
    public func report(in registry: MetricsRegistry, logger: Logger) {
        registry.collector(
            "stockgate_database_host_current",
            help: "1 for the host at which the newest session of PostgreSQL was opened, 0 for the others of the address",
            kind: .gauge
        ) {
            self.snapshot().map { .init(labels: [(name: "host", value: $0.name)], $0.isCurrent ? 1 : 0) }
        }
        registry.collector(
            "stockgate_database_host_failures_total",
            help: "Sessions of PostgreSQL that could not be opened at a host, and calls that it did not answer in time",
            kind: .counter
        ) {
            self.snapshot().map { .init(labels: [(name: "host", value: $0.name)], Double($0.failures)) }
        }
        registry.collector(
            "stockgate_database_abandoned_waits_total",
            help:
                "Server processes that were given up while a commit's outcome was unknown: their waits for the standby ended, or left alone (dropped)",
            kind: .counter
        ) {
            let (ended, dropped) = self.abandonedWaits
            return [
                .init(labels: [(name: "result", value: "ended")], Double(ended)),
                .init(labels: [(name: "result", value: "dropped")], Double(dropped)),
            ]
        }
        guard count > 1 else { return }
        onChange { change in
            if let before = change.before {
                logger.warning(
                    "PostgreSQL is used at another host",
                    metadata: ["host": "\(change.host)", "before": "\(before)", "why": "\(change.trouble ?? "its sessions ended")"]
                )
            } else {
                logger.info("PostgreSQL is used at this host", metadata: ["host": "\(change.host)"])
            }
        }
    }
}
