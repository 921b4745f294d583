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

    /// Each node once, so that the leader of each queue and the node of each connection is among them.
    @Test func aNodeKilled() async throws {
        try await AsyncSale.hold("each of three nodes of the broker killed -9") { sale in
            try await sale.stack.brokerMayDie()
            for node in Self.nodes {
                try await sale.stack("kill \(node)")
                try await sale.accepts(200, "while \(node) is dead")
                let healed = try await sale.heals()
                try await sale.stack("start \(node)")
                await sale.note("\(node): all settled after \(healed.text) without it")
                try await sale.queuesAreWhole()
            }
            try await sale.heals()
            #expect(await sale.overdue() == 0, "orders whose command no node took in time")
        }
    }

    /// Connections to it stay open and nothing answers, the other nodes see it no longer: as with a partition. It neither confirms nor refuses what it was given.
    @Test func aNodeCutOff() async throws {
        try await AsyncSale.hold("each of three nodes of the broker paused") { sale in
            for node in Self.nodes {
                try await sale.stack("pause \(node)")
                try await sale.accepts(200, "while \(node) is paused")
                let healed = try await sale.heals()
                await sale.note("\(node): all settled after \(healed.text) while it was paused")
                try await sale.stack("resume \(node)")
                // The others have given it up, and it does not join them again by itself.
                try await sale.stack("restart \(node)")
                try await sale.queuesAreWhole()
            }
            try await sale.heals()
            let again = try await sale.commands(["NEW", "SENT", "FAILED"], attempts: 2)
            #expect(again > 0, "commands that a paused node had taken were sent again elsewhere")
            await sale.note("\(again) commands published more than once")
            _ = await sale.overdue()
        }
    }

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
    /// Orders whose command no node of the broker took within `ASYNC_RECOVERY_AGE`; it notes them, and those whose command or result was lost.
    func overdue() async -> Int {
        await tally.look()
        let overdue = await tally.total("stockgate_outbox_overdue_orders_total")
        let lost = await tally.total("stockgate_outbox_unanswered_orders_total")
        note("settled over HTTP: \(overdue) orders whose command no node took, \(lost) without a result")
        return overdue
    }

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
