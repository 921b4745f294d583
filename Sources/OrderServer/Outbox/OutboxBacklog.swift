// Invariant: the number is an estimate that errs for moments only: what the last count found, plus what this process accepted and minus what it sent since that count began.
//
// Bounds: `maximumOrders` orders in commands not sent, `maximumEvents` rows of events not sent. Beyond the first, orders are refused; beyond the second, events are not written and are counted.

import ServerKit
import Synchronization

/// What waits in the outbox, known without asking the database.
final class OutboxBacklog: Sendable {
    private struct State {
        var orders = 0
        var events = 0
        /// While a count runs: what was added since it began.
        var ordersSince = 0
        var eventsSince = 0
        var oldestAge: Duration = .zero
        var rows: [OutboxStatus: Int] = [:]
    }

    private let state = Mutex(State())
    let maximumOrders: Int
    let maximumEvents: Int

    init(maximumOrders: Int, maximumEvents: Int) {
        self.maximumOrders = maximumOrders
        self.maximumEvents = maximumEvents
    }

    /// Orders that wait in commands.
    var orders: Int { self.state.withLock { max(0, $0.orders) } }
    /// Rows of events that wait.
    var events: Int { self.state.withLock { max(0, $0.events) } }
    /// Age of the oldest row that waits, as of the last count.
    var oldestAge: Duration { self.state.withLock { $0.oldestAge } }
    /// Rows that wait or are dead, as of the last count.
    var rows: [OutboxStatus: Int] { self.state.withLock { $0.rows } }

    /// Makes room for an order; false if there is none.
    func reserve() -> Bool {
        self.state.withLock { state in
            guard state.orders < self.maximumOrders else { return false }
            state.orders += 1
            state.ordersSince += 1
            return true
        }
    }

    /// Gives the room of orders back: they are sent, or were not made.
    func release(orders: Int) {
        self.state.withLock { state in
            state.orders -= orders
            state.ordersSince -= orders
        }
    }

    /// Whether events may be written.
    var takesEvents: Bool { self.state.withLock { $0.events < self.maximumEvents } }

    /// So many more rows of events wait, or fewer.
    func addEvents(_ rows: Int) {
        self.state.withLock { state in
            state.events += rows
            state.eventsSince += rows
        }
    }

    /// A count begins.
    func beginCount() {
        self.state.withLock { state in
            state.ordersSince = 0
            state.eventsSince = 0
        }
    }

    /// A count has ended.
    func endCount(orders: Int, events: Int, oldestAge: Duration, rows: [OutboxStatus: Int]) {
        self.state.withLock { state in
            state.orders = orders + max(0, state.ordersSince)
            state.events = events + max(0, state.eventsSince)
            state.oldestAge = oldestAge
            state.rows = rows
        }
    }
}
