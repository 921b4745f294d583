import ServerMetrics
import PostgresClient
import Synchronization

/// The order server's counts.
struct OrderMetrics: Sendable {
    let accepted: Counter
    let confirmed: Counter
    let failed: Counter
    let cancelled: Counter
    let undecided: Counter
    let turnedAway: Counter
    let lateSuccesses: Counter
    let recovered: Counter
    let overdue: Counter
    let unanswered: Counter
    let keysTaken: Counter
    let idsTaken: Counter
    /// Final refusals to take stock back, by the reason for giving it back.
    let undoRefused: [Undoing: Counter]
    let backlog = Backlog()
    let insertBatches: Histogram
    let completionBatches: Histogram
    let callBatches: Histogram
    let keyBatches: Histogram

    /// The number of orders on recovery's list, from its last round.
    final class Backlog: Sendable {
        let orders = Atomic<Int>(0)
    }

    /// Why stock is given back.
    enum Undoing: String, CaseIterable {
        /// The order was cancelled.
        case cancel
        /// A later step of its saga was refused.
        case saga
        /// The order's decrease was found done after the order had failed.
        case lateSuccess = "late_success"
    }

    init(_ registry: MetricsRegistry) {
        let backlog = self.backlog
        registry.gauge("stockgate_orders_recovery_backlog", help: "Orders on recovery's list, as of its last round") {
            Double(backlog.orders.load(ordering: .relaxed))
        }
        let orders = { (outcome: String) in
            registry.counter(
                "stockgate_orders_total",
                help: "Orders by what their saga came to",
                labels: [(name: "outcome", value: outcome)]
            )
        }
        accepted = registry.counter(
            "stockgate_orders_accepted_total",
            help: "Orders accepted with their message, to be decided over the broker"
        )
        confirmed = orders("confirmed")
        failed = orders("failed")
        cancelled = orders("cancelled")
        undecided = orders("undecided")
        turnedAway = registry.counter(
            "stockgate_orders_turned_away_total",
            help: "Requests answered from the memory of a sold-out product"
        )
        lateSuccesses = registry.counter(
            "stockgate_orders_late_success_total",
            help: "Decrements found done for an order that had failed"
        )
        recovered = registry.counter("stockgate_orders_recovered_total", help: "Orders settled by recovery")
        overdue = registry.counter(
            "stockgate_outbox_overdue_orders_total",
            help: "Orders whose message no broker took in time; recovery settled them over HTTP"
        )
        unanswered = registry.counter(
            "stockgate_outbox_unanswered_orders_total",
            help: "Orders whose message the broker took and whose result did not come in time; recovery settled them over HTTP"
        )
        keysTaken = registry.counter(
            "stockgate_orders_key_taken_total",
            help: "Orders that took another key, since theirs had sold another order's units: order ids come round again"
        )
        idsTaken = registry.counter(
            "stockgate_orders_id_taken_total",
            help: "Groups of orders that took other ids, since theirs had rows already"
        )
        var undoRefused: [Undoing: Counter] = [:]
        for undoing in Undoing.allCases {
            undoRefused[undoing] = registry.counter(
                "stockgate_orders_undo_refused_total",
                help: "Orders whose stock the product server refused for good to take back; each is in the log and needs operator action",
                labels: [(name: "during", value: undoing.rawValue)]
            )
        }
        self.undoRefused = undoRefused
        let sizes = { (name: String, help: String) in registry.histogram(name, help: help, bounds: Histogram.sizeBounds, scale: 1) }
        insertBatches = sizes("stockgate_orders_insert_batch_size", "Orders inserted by one statement")
        completionBatches = sizes("stockgate_orders_completion_batch_size", "Final states written by one statement")
        callBatches = sizes("stockgate_orders_product_batch_size", "Changes of stock sent in one call")
        keyBatches = sizes("stockgate_orders_key_batch_size", "Idempotency keys looked up by one statement")
    }

    /// Registers the figures of orders whose rows are locked by other transactions.
    func register(_ locked: LockedRows, in registry: MetricsRegistry) {
        registry.gauge("stockgate_orders_locked", help: "Orders whose row is known to be locked by another transaction") {
            Double(locked.snapshot().locked)
        }
        registry.gauge("stockgate_orders_locked_waiting", help: "Outcomes of orders that wait for a locked row") {
            Double(locked.snapshot().waiting)
        }
        let counter = { (name: String, help: String, value: @escaping @Sendable (LockedRows.Snapshot) -> Int) in
            registry.collector(name, help: help, kind: .counter) { [.init(Double(value(locked.snapshot())))] }
        }
        counter("stockgate_orders_locked_total", "Rows of orders found locked") { $0.found }
        counter("stockgate_orders_locked_refused_total", "Outcomes of orders refused because too many waited for locked rows") {
            $0.refused
        }
        counter("stockgate_orders_locked_timed_out_total", "Outcomes of orders that waited for a locked row in vain") { $0.timedOut }
    }
}
