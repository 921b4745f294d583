// Invariant: a count says only what waited at one moment between its begin and its end. So it does not replace the number, which this process keeps itself; it sets
//   bounds to it: at least what was found less what left during the count, at most what was found and what came during the count. An order that came during a count is
//   never there twice. One whose row was written, or sent, while the count began or ended may be missed until the next count: the number errs downwards then.
//
// Bounds: `maximumOrders` orders in commands not sent, `maximumEvents` rows of events not sent. Beyond the first, orders are refused; beyond the second, events are not written and are counted.

import ServerKit
import Synchronization

/// What waits in the outbox, known without asking the database.
final class OutboxBacklog: Sendable {
    private struct State {
        var orders = 0
        var events = 0
        /// While a count runs: what came and what left since it began.
        var ordersSince = Moved()
        var eventsSince = Moved()
        var oldestAge: Duration = .zero
        var rows: [OutboxStatus: Int] = [:]
    }

    private struct Moved {
        var came = 0
        var left = 0

        /// The number within the bounds that a count sets to it.
        func corrected(_ number: Int, counted: Int) -> Int { max(0, min(max(number, counted - self.left), counted + self.came)) }
    }

    private let state = Mutex(State())
    let maximumOrders: Int
    let maximumEvents: Int

    init(maximumOrders: Int, maximumEvents: Int) {
        self.maximumOrders = maximumOrders
        self.maximumEvents = maximumEvents
    }

    /// Orders that wait in commands.
    var orders: Int { self.state.withLock { $0.orders } }
    /// Rows of events that wait.
    var events: Int { self.state.withLock { $0.events } }
    /// Age of the oldest row that waits, as of the last count.
    var oldestAge: Duration { self.state.withLock { $0.oldestAge } }
    /// Rows that wait or are dead, as of the last count.
    var rows: [OutboxStatus: Int] { self.state.withLock { $0.rows } }

    /// Makes room for an order; false if there is none.
    func reserve() -> Bool {
        self.state.withLock { state in
            guard state.orders < self.maximumOrders else { return false }
            state.orders += 1
            state.ordersSince.came += 1
            return true
        }
    }

    /// Gives the room of orders back: they are sent, or were not made.
    func release(orders: Int) {
        self.state.withLock { state in
            state.orders = max(0, state.orders - orders)
            state.ordersSince.left += orders
        }
    }

    /// Whether events may be written.
    var takesEvents: Bool { self.state.withLock { $0.events < self.maximumEvents } }

    /// So many more rows of events wait, or fewer.
    func addEvents(_ rows: Int) {
        self.state.withLock { state in
            state.events = max(0, state.events + rows)
            if rows > 0 { state.eventsSince.came += rows } else { state.eventsSince.left -= rows }
        }
    }

    /// A count begins.
    func beginCount() {
        self.state.withLock { state in
            state.ordersSince = Moved()
            state.eventsSince = Moved()
        }
    }

    /// A count has ended.
    func endCount(orders: Int, events: Int, oldestAge: Duration, rows: [OutboxStatus: Int]) {
        self.state.withLock { state in
            state.orders = state.ordersSince.corrected(state.orders, counted: orders)
            state.events = state.eventsSince.corrected(state.events, counted: events)
            state.oldestAge = oldestAge
            state.rows = rows
        }
    }
}
