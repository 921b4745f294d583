// Invariant: a waiter is answered exactly once: by a version of its order above the one that it has seen, by the end of its time, by its cancellation, or by
//   the shutdown. An order is looked up as soon as possible after a waiter comes, and after each change that this server makes to it. Each sweep looks orders
//   up in turn, which finds the changes that other servers make. A look-up that began before a change never counts for that change.
//
// Bounds: `maximumPlaces` callers hold a place, and each waits for one order at a time. One look-up is out at a time, of at most `batch` orders. Sweeps are
//   `interval` apart. If n orders are waited for, each is looked up once in ceil(n / batch) sweeps. The end of a waiter's time is noticed at most one tick
//   late.
// Stops: `tick` returns when nobody waits any more.

/// Keeps who waits for which order, and decides what to look up next. Continuations, clock and database belong to the shell.
struct OrderWaiters {
    typealias ID = UInt64

    /// An order to look up, and the version that its waiters have seen already.
    struct Wanted: Equatable, Sendable {
        var order: Int64
        var seen: Int64
    }

    /// What an event requires beside answers to waiters.
    struct Next: Equatable {
        /// The orders to look up now; empty for none. ``found(_:)`` or ``lookupFailed()`` must follow.
        var lookup: [Wanted] = []
        /// Whether ticks must begin, because they have not begun or have ended.
        var startsTicks = false
    }

    private struct Waiter {
        var order: Int64
        var seen: Int64
        var deadline: ContinuousClock.Instant
    }

    let maximumPlaces: Int
    let batch: Int
    let interval: Duration

    private(set) var places = 0
    private var waiters: [ID: Waiter] = [:]
    private var byOrder: [Int64: [ID]] = [:]
    /// Orders to look up before the next sweep.
    private var due: Set<Int64> = []
    /// The orders that the present turn of sweeps has not looked up yet.
    private var turn: [Int64] = []
    private var lastSweep: ContinuousClock.Instant?
    private var isLooking = false
    private var isTicking = false
    /// Whether the shutdown has begun.
    private(set) var isClosed = false
    private var lastID: ID = 0

    init(maximumPlaces: Int, batch: Int = 1_024, interval: Duration = .milliseconds(50)) {
        self.maximumPlaces = max(1, maximumPlaces)
        self.batch = max(1, batch)
        self.interval = interval
    }

    /// Callers that wait now.
    var waiting: Int { self.waiters.count }

    // MARK: Places

    /// Takes a place. Returns false if there is none left, or after the shutdown.
    mutating func enter() -> Bool {
        guard !self.isClosed, self.places < self.maximumPlaces else { return false }
        self.places += 1
        return true
    }

    /// Gives a place back.
    mutating func leave() { self.places -= 1 }

    // MARK: Waiting

    /// A caller with a place begins to wait. Returns nil after the shutdown.
    mutating func wait(for order: Int64, after seen: Int64, until deadline: ContinuousClock.Instant) -> (id: ID, next: Next)? {
        guard !self.isClosed else { return nil }
        self.lastID += 1
        self.waiters[self.lastID] = Waiter(order: order, seen: seen, deadline: deadline)
        self.byOrder[order, default: []].append(self.lastID)
        // The order may have changed between the caller's own look and this line. Without this, only a sweep would find that change.
        self.due.insert(order)
        let startsTicks = !self.isTicking
        self.isTicking = true
        return (self.lastID, Next(lookup: self.takeDue(), startsTicks: startsTicks))
    }

    /// A caller has gone, or its own time limit is over. Returns false if it was answered before.
    mutating func cancel(_ id: ID) -> Bool { self.remove(id) != nil }

    /// This server has changed these orders, durably.
    mutating func changed(_ orders: some Sequence<Int64>) -> Next {
        guard !self.byOrder.isEmpty else { return Next() }
        for order in orders where self.byOrder[order] != nil { self.due.insert(order) }
        return Next(lookup: self.takeDue())
    }

    // MARK: Looking up

    /// The answer to a look-up: the orders that have a version above the one asked about, with that version.
    mutating func found(_ versions: [(order: Int64, version: Int64)]) -> (answered: [(id: ID, index: Int)], next: Next) {
        self.isLooking = false
        var answered: [(id: ID, index: Int)] = []
        for (index, found) in versions.enumerated() {
            for id in self.byOrder[found.order] ?? [] {
                guard let waiter = self.waiters[id], waiter.seen < found.version else { continue }
                _ = self.remove(id)
                answered.append((id, index))
            }
        }
        return (answered, Next(lookup: self.takeDue()))
    }

    /// A look-up had no answer. Only a sweep looks its orders up again, so that a database in trouble is not asked without pause.
    mutating func lookupFailed() { self.isLooking = false }

    // MARK: Time

    /// Called each `interval`, as long as the last call asked for that.
    /// - Returns: waiters whose time is over; orders to look up; whether ticks go on
    mutating func tick(now: ContinuousClock.Instant) -> (expired: [ID], lookup: [Wanted], goesOn: Bool) {
        var expired: [ID] = []
        for (id, waiter) in self.waiters where waiter.deadline <= now { expired.append(id) }
        for id in expired { _ = self.remove(id) }
        guard !self.waiters.isEmpty else {
            self.isTicking = false
            self.turn = []
            return (expired, [], false)
        }
        return (expired, self.sweep(now), true)
    }

    /// Ends every wait, and takes no more waiters.
    mutating func close() -> [ID] {
        self.isClosed = true
        let all = Array(self.waiters.keys)
        self.waiters = [:]
        self.byOrder = [:]
        self.due = []
        self.turn = []
        return all
    }

    // MARK: Inside

    private mutating func sweep(_ now: ContinuousClock.Instant) -> [Wanted] {
        if let lastSweep, lastSweep + self.interval > now { return self.takeDue() }
        guard !self.isLooking else { return [] }
        self.lastSweep = now
        var orders = self.takeFromDue()
        if self.turn.isEmpty { self.turn = Array(self.byOrder.keys) }
        // The loop ends with the turn, which contains each order at most once.
        while orders.count < self.batch, let order = self.turn.popLast() {
            if self.byOrder[order] != nil, !orders.contains(order) { orders.insert(order) }
        }
        return self.begin(orders)
    }

    private mutating func takeDue() -> [Wanted] {
        guard !self.isLooking, !self.due.isEmpty else { return [] }
        return self.begin(self.takeFromDue())
    }

    private mutating func takeFromDue() -> Set<Int64> {
        if self.due.count <= self.batch {
            defer { self.due = [] }
            return self.due
        }
        let taken = Set(self.due.prefix(self.batch))
        self.due.subtract(taken)
        return taken
    }

    private mutating func begin(_ orders: Set<Int64>) -> [Wanted] {
        var wanted: [Wanted] = []
        for order in orders {
            // If several wait for one order, the smallest version that one of them has seen decides. If none is left, the order is skipped.
            guard let seen = self.byOrder[order]?.compactMap({ self.waiters[$0]?.seen }).min() else { continue }
            wanted.append(Wanted(order: order, seen: seen))
        }
        self.isLooking = !wanted.isEmpty
        return wanted
    }

    private mutating func remove(_ id: ID) -> Waiter? {
        guard let waiter = self.waiters.removeValue(forKey: id) else { return nil }
        if var others = self.byOrder[waiter.order] {
            others.removeAll { $0 == id }
            if others.isEmpty {
                self.byOrder[waiter.order] = nil
                self.due.remove(waiter.order)
            } else {
                self.byOrder[waiter.order] = others
            }
        }
        return waiter
    }
}
