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
    var waiting: Int { waiters.count }

    // MARK: Places

    /// Takes a place. Returns false if there is none left, or after the shutdown.
    mutating func enter() -> Bool {
        guard !isClosed, places < maximumPlaces else { return false }
        places += 1
        return true
    }

    /// Gives a place back.
    mutating func leave() { places -= 1 }

    // MARK: Waiting

    /// A caller with a place begins to wait. Returns nil after the shutdown.
    mutating func wait(for order: Int64, after seen: Int64, until deadline: ContinuousClock.Instant) -> (id: ID, next: Next)? {
        guard !isClosed else { return nil }
        lastID += 1
        waiters[lastID] = Waiter(order: order, seen: seen, deadline: deadline)
        byOrder[order, default: []].append(lastID)
        // The order may have changed between the caller's own look and this line. Without this, only a sweep would find that change.
        due.insert(order)
        let startsTicks = !isTicking
        isTicking = true
        return (lastID, Next(lookup: takeDue(), startsTicks: startsTicks))
    }

    /// A caller has gone, or its own time limit is over. Returns false if it was answered before.
    mutating func cancel(_ id: ID) -> Bool { remove(id) != nil }

    /// This server has changed these orders, durably.
    mutating func changed(_ orders: some Sequence<Int64>) -> Next {
        guard !byOrder.isEmpty else { return Next() }
        for order in orders where byOrder[order] != nil { due.insert(order) }
        return Next(lookup: takeDue())
    }

    // MARK: Looking up

    /// The answer to a look-up: the orders that have a version above the one asked about, with that version.
    mutating func found(_ versions: [(order: Int64, version: Int64)]) -> (answered: [(id: ID, index: Int)], next: Next) {
        isLooking = false
        var answered: [(id: ID, index: Int)] = []
        for (index, found) in versions.enumerated() {
            for id in byOrder[found.order] ?? [] {
                guard let waiter = waiters[id], waiter.seen < found.version else { continue }
                _ = remove(id)
                answered.append((id, index))
            }
        }
        return (answered, Next(lookup: takeDue()))
    }

    /// A look-up had no answer. Only a sweep looks its orders up again, so that a database in trouble is left alone until then.
    mutating func lookupFailed() { isLooking = false }

    // MARK: Time

    /// Called each `interval`, as long as the last call asked for that.
    /// - Returns: waiters whose time is over; orders to look up; whether ticks go on
    mutating func tick(now: ContinuousClock.Instant) -> (expired: [ID], lookup: [Wanted], goesOn: Bool) {
        var expired: [ID] = []
        for (id, waiter) in waiters where waiter.deadline <= now { expired.append(id) }
        for id in expired { _ = remove(id) }
        guard !waiters.isEmpty else {
            isTicking = false
            turn = []
            return (expired, [], false)
        }
        return (expired, sweep(now), true)
    }

    /// Ends every wait, and takes no more waiters.
    mutating func close() -> [ID] {
        isClosed = true
        let all = Array(waiters.keys)
        waiters = [:]
        byOrder = [:]
        due = []
        turn = []
        return all
    }

    // MARK: Inside

    private mutating func sweep(_ now: ContinuousClock.Instant) -> [Wanted] {
        if let lastSweep, lastSweep + interval > now { return takeDue() }
        guard !isLooking else { return [] }
        self.lastSweep = now
        var orders = takeFromDue()
        if turn.isEmpty { turn = Array(byOrder.keys) }
        // The loop ends with the turn, which contains each order at most once.
        while orders.count < batch, let order = turn.popLast() {
            if byOrder[order] != nil, !orders.contains(order) { orders.insert(order) }
        }
        return begin(orders)
    }

    private mutating func takeDue() -> [Wanted] {
        guard !isLooking, !due.isEmpty else { return [] }
        return begin(takeFromDue())
    }

    private mutating func takeFromDue() -> Set<Int64> {
        if due.count <= batch {
            defer { due = [] }
            return due
        }
        let taken = Set(due.prefix(batch))
        due.subtract(taken)
        return taken
    }

    private mutating func begin(_ orders: Set<Int64>) -> [Wanted] {
        var wanted: [Wanted] = []
        for order in orders {
            // If several wait for one order, the smallest version that one of them has seen decides. If none is left, the order is skipped.
            guard let seen = byOrder[order]?.compactMap({ waiters[$0]?.seen }).min() else { continue }
            wanted.append(Wanted(order: order, seen: seen))
        }
        isLooking = !wanted.isEmpty
        return wanted
    }

    private mutating func remove(_ id: ID) -> Waiter? {
        guard let waiter = waiters.removeValue(forKey: id) else { return nil }
        if var others = byOrder[waiter.order] {
            others.removeAll { $0 == id }
            if others.isEmpty {
                byOrder[waiter.order] = nil
                due.remove(waiter.order)
            } else {
                byOrder[waiter.order] = others
            }
        }
        return waiter
    }
}
