import Foundation
import Testing

/// Faults that take minutes: `make test-ha` runs them, `make test` does not.
///
/// One after another: each test needs the machine for itself.
@Suite(.serialized)
enum HighAvailability {}

extension HighAvailability {
    /// Orders over a broker of three nodes with quorum queues, two servers of each kind, each with all three addresses.
    ///
    /// A message that failed waits two seconds at most. What a lost node had delivered may come again only with that node; recovery over HTTP settles those orders, after
    /// 15 s here instead of a shop's minute.
    @Suite(
        "Faults of a cluster of brokers",
        .serialized,
        .stackWithBrokerCluster(instances: 2, ["OUTBOX_BACKOFF_MAX": "2s", "ASYNC_RECOVERY_AGE": "15s"]),
        .timeLimit(.minutes(20))
    )
    struct OverABrokerCluster {}
}

extension HighAvailability.OverABrokerCluster {
    private static let nodes = ["rabbitmq-1", "rabbitmq-2", "rabbitmq-3"]

    @Test func aRollingRestart() async throws {
        try await AsyncSale.hold("a rolling restart of three nodes of the broker") { sale in
            for node in Self.nodes {
                try await sale.stack("restart \(node)")
                try await sale.queuesAreWhole()
                try await sale.accepts(100, "after \(node) was restarted")
            }
            try await sale.heals()
        }
    }
}

extension AsyncSale {
    /// Waits until every node is a running member of the cluster and each quorum queue could lose one: what an operator waits for before the next node goes.
    func queuesAreWhole() async throws {
        try await until("the cluster is whole", within: .seconds(180)) {
            for node in ["rabbitmq", "rabbitmq-2", "rabbitmq-3"] {
                guard (try? await self.stack.brokerControl("check_if_node_is_quorum_critical", on: node, tool: "rabbitmq-queues")) != nil
                else {
                    return false
                }
            }
            return true
        }
    }
}

extension Trait where Self == StackTrait {
    /// So many servers of each kind, with a broker of three nodes that they reach directly.
    static func stackWithBrokerCluster(instances: Int, _ settings: [String: String] = [:]) -> StackTrait {
        StackTrait(instances: instances, hasBroker: true, brokerNodes: 3, settings: settings)
    }

    /// So many servers of each kind, with a pooler between them and PostgreSQL.
    static func stackWithPooler(instances: Int, hasBroker: Bool = false, _ settings: [String: String] = [:]) -> StackTrait {
        StackTrait(instances: instances, hasBroker: hasBroker, hasPooler: true, settings: settings)
    }
}
