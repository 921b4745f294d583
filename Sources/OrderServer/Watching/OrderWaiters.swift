// Invariant: a waiter is answered exactly once: by a version of its order above the one that it has seen, by the end of its time, by being cancelled or by the
// shutdown. An order is looked up as soon as possible after somebody begins to wait for it and after each change that this server makes to it, and in turn with
// all others at each sweep, which finds the changes that others make. A look-up that began before a change never counts for that change.
//
// Bounds: `maximumPlaces` callers hold a place; each waits for one order at a time. One look-up is out at a time, of at most `batch` orders; sweeps are `interval`
// apart. Of n orders waited for, each is looked up once in every ceil(n / batch) sweeps. A time is over at most one tick late.
// Stops: `tick` says when nobody waits any more.

/// Who waits for which order, and what to look up next. Decides only; continuations, clock and database are its shell's.
struct OrderWaiters {
    typealias ID = UInt64

    /// An order to look up, and the newest version that is of no interest.
    struct Wanted: Equatable, Sendable {
        var order: Int64
        var seen: Int64
    }

    /// What follows from an event besides answers to waiters.
    struct Next: Equatable {
        /// A look-up to be made now, empty for none; ``found(_:)`` or ``lookupFailed()`` must follow.
        var lookup: [Wanted] = []
        /// Ticks must begin: they have not, or have ended.
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
    /// What is left of the current turn of sweeps.
    private var turn: [Int64] = []
    private var lastSweep: ContinuousClock.Instant?
    private var isLooking = false
    private var isTicking = false
    /// Whether nobody is taken any more.
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

    /// Takes a place; false if there is none left or after the shutdown.
    mutating func enter() -> Bool {
        guard !self.isClosed, self.places < self.maximumPlaces else { return false }
        self.places += 1
        return true
    }

    /// Gives a place back.
    mutating func leave() { self.places -= 1 }

    // MARK: Waiting

    /// A caller with a place begins to wait; nil after the shutdown.
    mutating func wait(for order: Int64, after seen: Int64, until deadline: ContinuousClock.Instant) -> (id: ID, next: Next)? {
        guard !self.isClosed else { return nil }
        self.lastID += 1
        self.waiters[self.lastID] = Waiter(order: order, seen: seen, deadline: deadline)
        self.byOrder[order, default: []].append(self.lastID)
        // A change between the caller's own look at the order and this line would else be seen by a sweep only.
        self.due.insert(order)
        let startsTicks = !self.isTicking
        self.isTicking = true
        return (self.lastID, Next(lookup: self.takeDue(), startsTicks: startsTicks))
    }

    /// A caller has gone, or the time it had of its own is over; false if it was answered before.
    mutating func cancel(_ id: ID) -> Bool { self.remove(id) != nil }

    /// This server has changed these orders, durably.
    mutating func changed(_ orders: some Sequence<Int64>) -> Next {
        guard !self.byOrder.isEmpty else { return Next() }
        for order in orders where self.byOrder[order] != nil { self.due.insert(order) }
        return Next(lookup: self.takeDue())
    }

    // MARK: Looking up

    /// A look-up's answer: of the orders wanted those with another version, and that version.
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

    /// A look-up had no answer. What it was about is found by a sweep: no look-up follows before that, so that a database in trouble is not asked without pause.
    mutating func lookupFailed() { self.isLooking = false }

    // MARK: Time

    /// Called each `interval` while it says so.
    /// - Returns: waiters whose time is over; what to look up; whether ticks go on
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

    /// Answers everybody and takes nobody any more.
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
        // Ends with the turn: each order is in it at most once.
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
            // Several may wait for one order: the one that has seen least decides. Nobody: they have gone since.
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
