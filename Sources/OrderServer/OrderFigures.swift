import ServerKit
import Synchronization

/// What the order server counts.
struct OrderFigures: Sendable {
    let accepted: Counter
    let confirmed: Counter
    let failed: Counter
    let cancelled: Counter
    let undecided: Counter
    let turnedAway: Counter
    let lateSuccesses: Counter
    let recovered: Counter
    let backlog = Backlog()
    let insertBatches: Histogram
    let completionBatches: Histogram
    let callBatches: Histogram

    /// Orders on recovery's list, as of its last round.
    final class Backlog: Sendable {
        let orders = Atomic<Int>(0)
    }

    init(_ registry: MetricsRegistry) {
        let backlog = self.backlog
        registry.gauge("orders_recovery_backlog", help: "Orders on recovery's list, as of its last round") {
            Double(backlog.orders.load(ordering: .relaxed))
        }
        let orders = { (outcome: String) in
            registry.counter("orders_total", help: "Orders by what their saga came to", labels: [(name: "outcome", value: outcome)])
        }
        self.accepted = registry.counter("orders_accepted_total", help: "Orders accepted with their message, to be decided over the broker")
        self.confirmed = orders("confirmed")
        self.failed = orders("failed")
        self.cancelled = orders("cancelled")
        self.undecided = orders("undecided")
        self.turnedAway = registry.counter("orders_turned_away_total", help: "Requests answered from the memory of a sold-out product")
        self.lateSuccesses = registry.counter("orders_late_success_total", help: "Decrements found done for an order that had failed")
        self.recovered = registry.counter("orders_recovered_total", help: "Orders settled by recovery")
        let sizes = { (name: String, help: String) in registry.histogram(name, help: help, bounds: Histogram.sizeBounds, scale: 1) }
        self.insertBatches = sizes("orders_insert_batch_size", "Orders inserted by one statement")
        self.completionBatches = sizes("orders_completion_batch_size", "Final states written by one statement")
        self.callBatches = sizes("orders_product_batch_size", "Changes of stock sent in one call")
    }
}
