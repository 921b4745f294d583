// Invariant: a request is turned away only for a refusal that was answered less than `time` ago, or later than the request came, of no more units than
// it wants.
//
// Bounds: `capacity` products; when they are all fresh, a further one is not remembered. In the second half of `time` one request is let through to look again, so
// that a rush need not stop; when the memory has ended before it has its answer, at most `maximumWaiting` wait for that, and no longer than it takes.

import ServerKit
import StrictJSON
import Synchronization

/// Remembers for a short time that a product could not give so many units, so that a rush for a sold-out product costs neither a call nor a row.
final class SoldOutProducts: Sendable {
    /// What a request is to do.
    enum Verdict: Sendable, Equatable {
        /// Ask the product server.
        case proceed
        /// Ask the product server; others wait for what is learned. ``endProbe(product:probe:)`` must follow in any case.
        case probe(UInt64)
        /// It is sold out.
        case soldOut
    }

    private struct Waiter {
        var quantity: Int64
        var done: @Sendable (Verdict) -> Void
    }

    private struct Entry {
        /// So many units were refused.
        var quantity: Int64
        var until: ContinuousClock.Instant
        /// The request that looks again.
        var probe: UInt64?
        /// Those that wait for it: none before `until`.
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

    /// Makes a memory. A time of zero remembers nothing.
    init(time: Duration, capacity: Int = 4096, maximumWaiting: Int = 4096) {
        self.time = time
        self.capacity = capacity
        self.maximumWaiting = maximumWaiting
    }

    /// Whether so many units may be had; `done` is called now, or when a probe that is out has its answer.
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

    /// Whether so many units may be had.
    func ask(product: Int64, quantity: Int64) async -> Verdict {
        await withCheckedContinuation { continuation in
            self.ask(product: product, quantity: quantity) { continuation.resume(returning: $0) }
        }
    }

    /// The answer that can be given at once; nil to wait for a probe.
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

    /// Whether so many units are known not to be had: the same memory for those who do not wait and look for nobody.
    func isSoldOut(product: Int64, quantity: Int64) -> Bool {
        self.state.withLock { state in
            guard let entry = state.entries[product], quantity >= entry.quantity else { return false }
            return ContinuousClock.now < entry.until
        }
    }

    /// Whether an answer of that time still counts.
    func isFresh(_ time: Timestamp) -> Bool {
        let age = Timestamp.now.microseconds(since: time)
        return self.time > .zero && age.magnitude < self.time.microseconds
    }

    /// The product server refused so many units.
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
            // A refusal of fewer units says more while it counts; it is not prolonged by one of more.
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

    /// A probe has ended, whatever came of it. If nothing was learned, those that wait ask for themselves.
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
            // Most products of most sales are never here.
            state.entries.isEmpty ? [] : state.entries.removeValue(forKey: product)?.waiters ?? []
        }
        for waiter in waiters { waiter.done(.proceed) }
    }
}
