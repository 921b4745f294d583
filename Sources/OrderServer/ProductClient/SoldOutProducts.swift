// Invariant: a request is turned away only because of a refusal that was answered less than `time` ago, or after the request came, and that concerned at most
//   as many units as it wants.
//
// Bounds: `capacity` products. If all of them are fresh, a further one is not remembered. In the second half of `time` one request is let through as a probe,
//   so that the memory can be renewed without a pause. If the memory ends before the probe has its answer, at most `maximumWaiting` requests wait for that
//   answer, and no longer than the probe takes.

import StrictJSON
import Synchronization

/// Remembers for a short time that a product could not give a number of units, so that a rush for a sold-out product costs no calls and no rows.
final class SoldOutProducts: Sendable {
    /// What a request should do.
    enum Verdict: Sendable, Equatable {
        /// Ask the product server.
        case proceed
        /// Ask the product server, while others wait for the result. ``endProbe(product:probe:)`` must follow in any case.
        case probe(UInt64)
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
    private let capacity: Int
    private let maximumWaiting: Int

    /// Creates a memory. With a time of zero nothing is remembered.
    init(time: Duration, capacity: Int = 4096, maximumWaiting: Int = 4096) {
        self.time = time
        self.capacity = capacity
        self.maximumWaiting = maximumWaiting
    }

    /// Whether this many units may be available. `done` is called now, or when the present probe has its answer.
    func ask(product: Int64, quantity: Int64, done: @escaping @Sendable (Verdict) -> Void) {
        if let verdict = self.look(product, quantity) { return done(verdict) }
        let isWaiting = self.state.withLock { state in
            guard let entry = state.entries[product], entry.probe != nil, entry.waiters.count < self.maximumWaiting else {
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
            let left = ContinuousClock.now.duration(to: entry.until)
            if left > .zero, quantity < entry.quantity { return .proceed }
            if entry.probe == nil, left * 2 < self.time {
                state.lastProbe += 1
                state.entries[product]?.probe = state.lastProbe
                return .probe(state.lastProbe)
            }
            return left > .zero ? .soldOut : nil
        }
    }

    /// Whether this many units are known to be unavailable. For callers that neither wait nor probe.
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
        guard self.time > .zero else { return }
        let now = ContinuousClock.now
        let waiters = self.state.withLock { state -> [Waiter] in
            guard let entry = state.entries[product] else {
                if state.entries.count >= self.capacity {
                    state.entries = state.entries.filter { $0.value.until > now || $0.value.probe != nil }
                }
                if state.entries.count < self.capacity { state.entries[product] = Entry(quantity: quantity, until: now + self.time) }
                return []
            }
            // A remembered refusal of fewer units says more, as long as it counts. A refusal of more units does not extend it.
            if entry.quantity >= quantity || entry.until <= now {
                state.entries[product] = Entry(quantity: quantity, until: now + self.time)
            } else {
                state.entries[product]?.probe = nil
                state.entries[product]?.waiters = []
            }
            return entry.waiters
        }
        for waiter in waiters { waiter.done(waiter.quantity >= quantity ? .soldOut : .proceed) }
    }

    /// The product server gave units.
    func sawStock(product: Int64) { self.forget(product) }

    /// The product server gave no answer.
    func sawNothing(product: Int64) { self.forget(product) }

    /// A probe has ended. If nothing was learned, the requests that wait go to the product server themselves.
    func endProbe(product: Int64, probe: UInt64) {
        let waiters = self.state.withLock { state -> [Waiter] in
            guard let entry = state.entries[product], entry.probe == probe else { return [] }
            state.entries[product] = nil
            return entry.waiters
        }
        for waiter in waiters { waiter.done(.proceed) }
    }

    private func forget(_ product: Int64) {
        let waiters = self.state.withLock { state -> [Waiter] in
            // In most sales, most products have no entry.
            state.entries.isEmpty ? [] : state.entries.removeValue(forKey: product)?.waiters ?? []
        }
        for waiter in waiters { waiter.done(.proceed) }
    }
}
