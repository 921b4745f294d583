// Invariant: a request is turned away only because of a refusal, or of a look at the stock, that was answered less than `time` ago, or after the request came,
//   and that concerned at most as many units as it wants. When a look is answered, an order was refused less than `lookTime` and one look ago.
//
// Bounds: `capacity` products. If all of them are fresh, a further one is not remembered. In the second half of `time` one request is let through as a probe,
//   so that the memory can be renewed without a pause. If the memory ends before the probe has its answer, at most `maximumWaiting` requests wait for that
//   answer, and no longer than the probe takes.
//
// A probe that is an order costs its row, its events and a call. For `lookTime` after an order was refused, a probe only looks at the product's stock instead. A
// look may be answered from an old state of the ledger, so an order goes again when that time is over.

import StrictJSON
import Synchronization

/// Remembers for a short time that a product could not give a number of units, so that a rush for a sold-out product is answered without calls and rows.
final class SoldOutProducts: Sendable {
    /// What a request should do.
    enum Verdict: Sendable, Equatable {
        /// Ask the product server.
        case proceed
        /// Ask the product server, while others wait for the result. ``endProbe(product:probe:)`` must follow in any case.
        case probe(UInt64)
        /// Look at the product's stock, while others wait for the result. ``sawLeft(product:units:)`` may follow, and ``endProbe(product:probe:)`` must.
        case look(UInt64)
        /// Give up: the product is sold out.
        case soldOut
    }

    private struct Waiter {
        var quantity: Int64
        var done: @Sendable (Verdict) -> Void
    }

    private struct Entry {
        /// The number of units that was refused.
        var quantity: Int64
        var until: ContinuousClock.Instant
        /// Until then probes only look.
        var looksUntil: ContinuousClock.Instant
        /// The number of the request that is the probe, if there is one.
        var probe: UInt64?
        /// Requests that wait for the probe. There are none before `until`.
        var waiters: [Waiter] = []
    }

    private struct State {
        var entries: [Int64: Entry] = [:]
        var lastProbe: UInt64 = 0
    }

    private let state = Mutex(State())
    private let time: Duration
    private let lookTime: Duration
    private let capacity: Int
    private let maximumWaiting: Int

    /// Creates a memory. With a time of zero nothing is remembered; with a look time of zero every probe is an order.
    init(time: Duration, lookTime: Duration = .zero, capacity: Int = 4096, maximumWaiting: Int = 4096) {
        self.time = time
        self.lookTime = lookTime
        self.capacity = capacity
        self.maximumWaiting = maximumWaiting
    }

    /// Whether this many units may be available. `done` is called now, or when the present probe has its answer.
    func ask(product: Int64, quantity: Int64, done: @escaping @Sendable (Verdict) -> Void) {
        if let verdict = look(product, quantity) { return done(verdict) }
        let isWaiting = self.state.withLock { state in
            guard let entry = state.entries[product], entry.probe != nil, entry.waiters.count < maximumWaiting else {
                return false
            }
            state.entries[product]?.waiters.append(Waiter(quantity: quantity, done: done))
            return true
        }
        if !isWaiting { done(.proceed) }
    }

    /// Whether this many units may be available.
    func ask(product: Int64, quantity: Int64) async -> Verdict {
        await withCheckedContinuation { continuation in
            self.ask(product: product, quantity: quantity) { continuation.resume(returning: $0) }
        }
    }

    /// The verdict that is possible at once; nil: wait for a probe.
    private func look(_ product: Int64, _ quantity: Int64) -> Verdict? {
        self.state.withLock { state in
            guard let entry = state.entries[product] else { return .proceed }
            let now = ContinuousClock.now
            let left = now.duration(to: entry.until)
            if left > .zero, quantity < entry.quantity { return .proceed }
            if wantsProbe(entry, left) {
                state.lastProbe += 1
                state.entries[product]?.probe = state.lastProbe
                return now < entry.looksUntil ? .look(state.lastProbe) : .probe(state.lastProbe)
            }
            return left > .zero ? .soldOut : nil
        }
    }

    /// Whether ``ask(product:quantity:done:)`` would say at once that the product is sold out.
    func turnsAway(product: Int64, quantity: Int64) -> Bool {
        self.state.withLock { state in
            guard let entry = state.entries[product], quantity >= entry.quantity else { return false }
            let left = ContinuousClock.now.duration(to: entry.until)
            return left > .zero && !wantsProbe(entry, left)
        }
    }

    /// Whether the next request that may ask is a probe, with so much time left.
    private func wantsProbe(_ entry: Entry, _ left: Duration) -> Bool { entry.probe == nil && left * 2 < time }

    /// Whether this many units are known to be unavailable. For callers that want an answer at once, and leave the probe to others.
    func isSoldOut(product: Int64, quantity: Int64) -> Bool {
        self.state.withLock { state in
            guard let entry = state.entries[product], quantity >= entry.quantity else { return false }
            return ContinuousClock.now < entry.until
        }
    }

    /// Whether an answer from that time still counts.
    func isFresh(_ time: Timestamp) -> Bool {
        let age = Timestamp.now.microseconds(since: time)
        return self.time > .zero && age.magnitude < self.time.microseconds
    }

    /// The product server refused this many units.
    func sawRefusal(product: Int64, quantity: Int64) {
        guard time > .zero else { return }
        let now = ContinuousClock.now
        let waiters = state.withLock { state -> [Waiter] in
            guard let entry = state.entries[product] else {
                if state.entries.count >= capacity {
                    state.entries = state.entries.filter { $0.value.until > now || $0.value.probe != nil }
                }
                if state.entries.count < capacity { state.entries[product] = self.entry(quantity, now) }
                return []
            }
            // A remembered refusal of fewer units says more, as long as it counts. A refusal of more units does not extend it.
            if entry.quantity >= quantity || entry.until <= now {
                state.entries[product] = self.entry(quantity, now)
            } else {
                state.entries[product]?.probe = nil
                state.entries[product]?.waiters = []
            }
            return entry.waiters
        }
        for waiter in waiters { waiter.done(waiter.quantity >= quantity ? .soldOut : .proceed) }
    }

    /// A refusal that was answered now.
    private func entry(_ quantity: Int64, _ now: ContinuousClock.Instant) -> Entry {
        Entry(quantity: quantity, until: now + time, looksUntil: now + lookTime)
    }

    /// A look has found this many units. If they are too few for what was refused, the memory is renewed.
    func sawLeft(product: Int64, units: Int64) {
        let now = ContinuousClock.now
        let waiters = state.withLock { state -> [Waiter] in
            guard time > .zero, let entry = state.entries[product], units < entry.quantity else { return [] }
            state.entries[product] = Entry(quantity: entry.quantity, until: now + time, looksUntil: entry.looksUntil)
            return entry.waiters
        }
        // Whoever waits came after the memory had ended, and may want fewer units than were refused. Who wants more than the look found is told sold out; the
        // others ask the product server.
        for waiter in waiters { waiter.done(waiter.quantity > units ? .soldOut : .proceed) }
    }

    /// The product server gave units.
    func sawStock(product: Int64) { forget(product) }

    /// The product server gave no answer.
    func sawNothing(product: Int64) { forget(product) }

    /// A probe has ended. If nothing was learned, the requests that wait go to the product server themselves.
    func endProbe(product: Int64, probe: UInt64) {
        let waiters = state.withLock { state -> [Waiter] in
            guard let entry = state.entries[product], entry.probe == probe else { return [] }
            state.entries[product] = nil
            return entry.waiters
        }
        for waiter in waiters { waiter.done(.proceed) }
    }

    private func forget(_ product: Int64) {
        let waiters = state.withLock { state -> [Waiter] in
            // In most sales, most products have no entry.
            state.entries.isEmpty ? [] : state.entries.removeValue(forKey: product)?.waiters ?? []
        }
        for waiter in waiters { waiter.done(.proceed) }
    }
}
