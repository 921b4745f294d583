// The number of waiting orders, and that of waiting events, are kept by this process; counts in the database correct them.
//
// Invariant: a count is true for one moment between its begin and its end. So it does not replace the number, but bounds it: the number is at least what was
//   counted less what left during the count, and at most what was counted plus what came during the count. An order that came during a count is never counted
//   twice. An order whose row was written or sent while a count began or ended may be missed until the next count; the number is then too low.
//
// Bounds: `maximumOrders` orders in commands that are not sent, `maximumEvents` event rows that are not sent. Beyond the first bound orders are refused. Beyond
//   the second, events are not written, and are counted as dropped.

import Synchronization

/// How much waits in the outbox, known without asking the database.
final class OutboxBacklog: Sendable {
    private struct State {
        var orders = 0
        var events = 0
        /// The orders that came and left since the present count began; nil if none runs.
        var ordersSince = Moved()
        var eventsSince = Moved()
        var oldestAge: Duration = .zero
        var rows: [OutboxStatus: Int] = [:]
        /// The orders that were found without a result in looks that followed within ``unansweredTime`` of each other, and the time of the last such look.
        var unanswered: (orders: Int, at: ContinuousClock.Instant)?
    }

    /// How long a find of orders without a result is shown. A policy at the broker that throws messages away leads to new finds, and so stays in sight.
    let unansweredTime: Duration

    private struct Moved {
        var came = 0
        var left = 0

        /// The number, brought within the bounds that a count gives.
        func corrected(_ number: Int, counted: Int) -> Int { max(0, min(max(number, counted - left), counted + came)) }
    }

    private let state = Mutex(State())
    let maximumOrders: Int
    let maximumEvents: Int

    init(maximumOrders: Int, maximumEvents: Int, unansweredTime: Duration = .seconds(60)) {
        self.unansweredTime = unansweredTime
        self.maximumOrders = maximumOrders
        self.maximumEvents = maximumEvents
    }

    /// Orders that wait in commands.
    var orders: Int { state.withLock { $0.orders } }
    /// Event rows that wait.
    var events: Int { state.withLock { $0.events } }
    /// The age of the oldest waiting row, from the last count.
    var oldestAge: Duration { state.withLock { $0.oldestAge } }
    /// The rows that wait or are dead, from the last count.
    var rows: [OutboxStatus: Int] { state.withLock { $0.rows } }

    /// Orders whose message the broker has taken and whose result did not come in time, as recovery has found them lately.
    var unanswered: Int {
        self.state.withLock { state in
            guard let found = state.unanswered, ContinuousClock.now - found.at < unansweredTime else { return 0 }
            return found.orders
        }
    }

    /// Recovery has found so many orders without a result.
    func found(unanswered orders: Int) {
        let now = ContinuousClock.now
        self.state.withLock { state in
            let before = state.unanswered.flatMap { now - $0.at < unansweredTime ? $0.orders : nil } ?? 0
            state.unanswered = (before + orders, now)
        }
    }

    /// Reserves room for an order. Returns false if there is none.
    func reserve() -> Bool {
        self.state.withLock { state in
            guard state.orders < maximumOrders else { return false }
            state.orders += 1
            state.ordersSince.came += 1
            return true
        }
    }

    /// Releases the room of orders that were sent, or were not made.
    func release(orders: Int) {
        self.state.withLock { state in
            state.orders = max(0, state.orders - orders)
            state.ordersSince.left += orders
        }
    }

    /// Reserves room for event rows, before the statement that writes them is sent. Returns false if too many wait. If the rows were added after their
    /// statement, a count in between could count them twice.
    func reserve(events rows: Int) -> Bool {
        self.state.withLock { state in
            guard state.events < maximumEvents else { return false }
            state.events += rows
            state.eventsSince.came += rows
            return true
        }
    }

    /// Releases the room of event rows that were sent, or were not written.
    func release(events rows: Int) {
        self.state.withLock { state in
            state.events = max(0, state.events - rows)
            state.eventsSince.left += rows
        }
    }

    func beginCount() {
        self.state.withLock { state in
            state.ordersSince = Moved()
            state.eventsSince = Moved()
        }
    }

    func endCount(orders: Int, events: Int, oldestAge: Duration, rows: [OutboxStatus: Int]) {
        self.state.withLock { state in
            state.orders = state.ordersSince.corrected(state.orders, counted: orders)
            state.events = state.eventsSince.corrected(state.events, counted: events)
            state.oldestAge = oldestAge
            state.rows = rows
        }
    }
}
