import ServerMetrics
import ServerKit
import StrictJSON
import Synchronization

/// A follower's counts, and what its readiness and its metrics show.
final class FollowMetrics: Sendable {
    /// The state after the last batch.
    struct Snapshot: Sendable, Equatable {
        var position = FollowPosition()
        /// The time up to which the replica is known to be complete; nil if it never was.
        var completeUntil: Timestamp?
        /// Whether the replica has been complete at least once since this process began.
        var hasCaughtUp = false
        /// Whether the replica was complete under an earlier process with the same database.
        var hadCaughtUp = false
        /// Whether the database took the last batch.
        var isWriting = true
    }

    private let state = Mutex(Snapshot())
    private let source = Mutex<(any OrderEventSource)?>(nil)
    let messages: Counter
    let poison: Counter
    let applied: Counter
    let stale: Counter
    let batches: Histogram

    init(_ registry: MetricsRegistry) {
        messages = registry.counter("stockgate_order_follow_messages_total", help: "Messages of the stream read, repeats included")
        poison = registry.counter("stockgate_order_follow_poison_total", help: "Messages left out because they cannot be read")
        let orders = { (outcome: String) in
            registry.counter(
                "stockgate_order_follow_orders_total",
                help: "Orders in the messages: applied, or stale because a version as new was here or in the same batch",
                labels: [(name: "outcome", value: outcome)]
            )
        }
        applied = orders("applied")
        stale = orders("stale")
        batches = registry.histogram(
            "stockgate_order_follow_batch_size",
            help: "Messages applied by one statement",
            bounds: Histogram.sizeBounds,
            scale: 1
        )
        registry.gauge(
            "stockgate_order_follow_lag_seconds",
            help: "Since when the replica is not known to have everything; -1 if it never had"
        ) {
            [self] in
            lag().map { Double($0.microseconds) / 1e6 } ?? -1
        }
        registry.gauge("stockgate_order_follow_position", help: "Offset of the newest message applied; -1 for none") { [self] in
            snapshot().position.last.map { Double($0) } ?? -1
        }
        registry.collector(
            "stockgate_order_follow_gaps_total",
            help: "How often messages were cut from the stream before the replica saw them",
            kind: .counter
        ) {
            [self] in
            [.init(Double(snapshot().position.gaps))]
        }
        registry.collector(
            "stockgate_order_follow_missed_messages_total",
            help: "Messages cut from the stream before the replica saw them",
            kind: .counter
        ) {
            [self] in
            let position = snapshot().position
            return [
                .init(labels: [(name: "at", value: "beginning")], Double(position.missedAtBeginning)),
                .init(labels: [(name: "at", value: "later")], Double(position.missedLater)),
            ]
        }
        registry.gauge("stockgate_order_follow_connected", help: "1 while the stream's broker is connected") { [self] in
            isConnected ? 1 : 0
        }
        registry.collector("stockgate_order_follow_reconnects_total", help: "Connections to the stream's broker made again", kind: .counter)
        {
            [self] in
            [.init(Double(source.withLock { $0 }?.reconnects ?? 0))]
        }
    }

    func snapshot() -> Snapshot { state.withLock { $0 } }
    var isConnected: Bool { source.withLock { $0 }?.isConnected ?? false }

    func change(_ body: (inout Snapshot) -> Void) { state.withLock { body(&$0) } }
    func use(_ source: any OrderEventSource) { self.source.withLock { $0 = source } }

    /// How long ago the replica was last known to be complete; nil if it never was.
    func lag(now: Timestamp = .now) -> Duration? {
        snapshot().completeUntil.map { .microseconds(max(0, now.microseconds(since: $0))) }
    }

    /// The dependency as `/readyz` names it.
    func report() -> HealthReport {
        let snapshot = self.snapshot()
        let isConnected = self.isConnected
        let state: HealthState =
            if snapshot.hasCaughtUp {
                isConnected && snapshot.isWriting && snapshot.position.missed == 0 ? .up : .degraded
            } else {
                // While the replica reads, its lag is unknown. If the broker is away, the replica of an earlier process is better than none.
                snapshot.hadCaughtUp && !isConnected ? .degraded : .down
            }
        var detail: [JSONMember] = [
            JSONMember("connected", .bool(isConnected)),
            JSONMember("caughtUp", .bool(snapshot.hasCaughtUp)),
            JSONMember("offset", snapshot.position.last.map { .int(Int64(clamping: $0)) } ?? .null),
            JSONMember("lagSeconds", lag().map { .double(Double($0.microseconds) / 1e6) } ?? .null),
        ]
        if snapshot.position.missed > 0 {
            detail.append(JSONMember("missedAtBeginning", .int(Int64(clamping: snapshot.position.missedAtBeginning))))
            detail.append(JSONMember("missedLater", .int(Int64(clamping: snapshot.position.missedLater))))
        }
        return HealthReport(state, detail: .object(detail))
    }
}
