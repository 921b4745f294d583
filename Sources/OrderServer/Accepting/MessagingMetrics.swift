import MessageBroker
import ServerKit
import ServerMetrics
import StockContract
import Synchronization

/// The order server's counts of messages.
struct MessagingMetrics: Sendable {
    /// How many result messages were put out of their batch and are not settled yet.
    final class Aside: Sendable {
        private let held = Atomic<Int>(0)
        var count: Int { held.load(ordering: .relaxed) }
        func add(_ change: Int) { held.wrappingAdd(change, ordering: .relaxed) }
    }

    private let commandSeconds: Histogram
    private let eventSeconds: Histogram
    let dead: Counter
    let droppedEvents: Counter
    let droppedNotifications: Counter
    let resultBatches: Histogram
    let duplicates: Counter
    let unexpected: Counter
    let kept: Counter
    let redelivered: Counter
    let poison: Counter
    let aside = Aside()
    private let publishes: CounterFamily
    private let results: CounterFamily

    init(_ registry: MetricsRegistry) {
        let relaySeconds = { (kind: String) in
            registry.histogram(
                "stockgate_outbox_relay_seconds",
                help: "From the writing of a message to the broker's confirm",
                labels: [(name: "kind", value: kind)],
                bounds: MessagingMetrics.relayBounds
            )
        }
        commandSeconds = relaySeconds("commands")
        eventSeconds = relaySeconds("events")
        dead = registry.counter("stockgate_outbox_dead_total", help: "Messages given up; their orders were left to recovery")
        droppedEvents = registry.counter(
            "stockgate_order_events_dropped_total",
            help: "Events that were not written because too many wait"
        )
        droppedNotifications = registry.counter(
            "stockgate_outbox_notifications_dropped_total",
            help: "Notifications of other servers' messages that came faster than they were taken; the relays look for themselves"
        )
        resultBatches = registry.histogram(
            "stockgate_order_results_batch_size",
            help: "Results written by one statement",
            bounds: Histogram.sizeBounds,
            scale: 1
        )
        duplicates = registry.counter(
            "stockgate_order_results_duplicate_total",
            help: "Results for orders that had that state already"
        )
        unexpected = registry.counter(
            "stockgate_order_results_unexpected_total",
            help: "Results for orders that this database does not have"
        )
        kept = registry.counter(
            "stockgate_order_results_kept_total",
            help: "Results for orders that were in another state, which they kept"
        )
        redelivered = registry.counter(
            "stockgate_order_results_redelivered_total",
            help: "Result messages that had been delivered before"
        )
        poison = registry.counter(
            "stockgate_order_results_poison_total",
            help: "Result messages that could not be read or written, put to the dead letters"
        )
        let aside = self.aside
        registry.gauge("stockgate_order_results_aside", help: "Result messages that are tried alone, out of their batch") {
            Double(aside.count)
        }
        publishes = registry.counters(
            "stockgate_outbox_publish_total",
            help: "Attempts to publish by outcome",
            labelNames: ["outcome"],
            capacity: 8
        )
        results = registry.counters("stockgate_order_results_total", help: "Results by outcome", labelNames: ["outcome"], capacity: 8)
    }

    /// Bucket bounds in nanoseconds. They are close together below 20 ms, where the delay should be.
    private static let relayBounds: [UInt64] = [
        0.5, 1, 2.5, 5, 7.5, 10, 12, 14, 15, 16, 17, 18, 19, 20, 21, 22, 25, 30, 40, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000,
    ].map { UInt64($0 * 1_000_000) }

    /// The time from the writing of a message's row to the broker's confirm.
    func relaySeconds(_ kind: OutboxSQL.Kind) -> Histogram {
        switch kind {
        case .commands: commandSeconds
        case .events: eventSeconds
        }
    }

    /// An attempt to publish `count` messages has ended.
    func published(_ outcomes: [PublishOutcome], of count: Int) {
        var confirmed: UInt64 = 0
        for outcome in outcomes {
            switch outcome {
            case .confirmed: confirmed += 1
            case .returned: publishes.with("returned").add()
            case .rejected: publishes.with("rejected").add()
            case .unknown: publishes.with("unknown").add()
            case .unsent: publishes.with("unsent").add()
            }
        }
        if confirmed > 0 { publishes.with("confirmed").add(confirmed) }
        if count > outcomes.count { publishes.with("unknown").add(UInt64(count - outcomes.count)) }
    }

    /// Results were written, or were found written already.
    func results(_ outcome: OrderStockResult.Outcome, _ count: Int) {
        if count > 0 { self.results.with(outcome.rawValue.lowercased()).add(UInt64(count)) }
    }

    /// Registers the values that are read when metrics are asked for.
    static func register(_ endpoints: MessageEndpoints, _ backlog: OutboxBacklog, in registry: MetricsRegistry) {
        registry.collector("stockgate_outbox_rows", help: "Messages by status, as of the relay's last count", kind: .gauge) {
            let rows = backlog.rows
            return [OutboxStatus.new, .failed, .dead].map { .init(labels: [(name: "status", value: $0.rawValue)], Double(rows[$0] ?? 0)) }
        }
        registry.gauge("stockgate_outbox_backlog_orders", help: "Accepted orders whose message is not sent, an estimate") {
            Double(backlog.orders)
        }
        registry.gauge("stockgate_outbox_backlog_events", help: "Rows of events that are not sent, an estimate") { Double(backlog.events) }
        registry.gauge("stockgate_outbox_oldest_seconds", help: "Age of the oldest message that is not sent, as of the relay's last count")
        {
            Double(backlog.oldestAge.microseconds) / 1e6
        }
        registry.register(broker: "end") { endpoints.snapshots }
    }
}
