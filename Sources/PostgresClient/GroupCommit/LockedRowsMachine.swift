/// The rows of a table that are known to be locked by another open transaction, and the callers that wait for them. This value decides; ``LockedRows`` acts
/// after it has released its lock.
///
/// Invariant: each waiting caller is handed out exactly once: by `freed`, `expired` or `forgetAll`.
///
/// Bounds: `maximumRows` rows. At most `maximumWaitingForOne` callers wait for one row and `maximumWaiting` for all rows, so that one row's callers leave room
/// for those of other rows.
struct LockedRowsMachine<Waiter> {
    enum Admission: Hashable {
        /// The row is not known to be locked. The waiter was not kept.
        case notLocked
        case waiting
        /// Too many wait already. The waiter was not kept.
        case refused
        /// The row has been locked for too long already. The waiter was not kept.
        case tooLate
    }

    private struct Waiting {
        var until: ContinuousClock.Instant
        var grace: Duration?
        var waiter: Waiter
    }

    private struct Row {
        var since: ContinuousClock.Instant
        /// When the watch last saw it locked. What has passed since then proves nothing: a row that the program's own statements held for a moment is free
        /// again long before a watch on a busy machine has looked.
        var seen: ContinuousClock.Instant
        var isAnnounced = false
        var waiting: [Waiting] = []

        init(since: ContinuousClock.Instant) {
            self.since = since
            seen = since
        }

        /// How long it has been locked, as far as that has been seen.
        var age: Duration { seen - since }

        /// Whether the time of a caller is over: its own, or the grace of one who is in a hurry.
        func isOver(until: ContinuousClock.Instant, grace: Duration?, at now: ContinuousClock.Instant) -> Bool {
            until <= now || grace.map { age >= $0 } ?? false
        }

        func isOver(_ waiting: Waiting, at now: ContinuousClock.Instant) -> Bool {
            isOver(until: waiting.until, grace: waiting.grace, at: now)
        }
    }

    let maximumRows: Int
    let maximumWaitingForOne: Int
    let maximumWaiting: Int
    private var rows: [Int64: Row] = [:]
    /// The rows in the order of their turns.
    private var turns: [Int64] = []

    /// Callers that wait.
    private(set) var waiting = 0
    /// Rows found locked, since the start.
    private(set) var found = 0
    /// Callers turned away, since the start.
    private(set) var refused = 0
    /// Callers whose time was over, since the start.
    private(set) var timedOut = 0

    init(maximumRows: Int, maximumWaitingForOne: Int, maximumWaiting: Int) {
        self.maximumRows = maximumRows
        self.maximumWaitingForOne = maximumWaitingForOne
        self.maximumWaiting = maximumWaiting
    }

    var isEmpty: Bool { rows.isEmpty }
    /// The rows known to be locked.
    var locked: [Int64] { turns }

    func isLocked(_ row: Int64) -> Bool { rows[row] != nil }

    /// Rows were found locked. Rows beyond the bound are not remembered.
    mutating func found(_ locked: some Sequence<Int64>, at now: ContinuousClock.Instant) {
        for row in locked where rows[row] == nil && rows.count < maximumRows {
            rows[row] = Row(since: now)
            turns.append(row)
            found += 1
        }
    }

    /// The watch has seen that these rows were still locked at this moment.
    mutating func seenLocked(_ locked: Set<Int64>, at moment: ContinuousClock.Instant) {
        for row in locked {
            guard let seen = rows[row]?.seen, seen < moment else { continue }
            rows[row]?.seen = moment
        }
    }

    /// A caller wants a row. With `grace`, it waits only while the row has been seen locked for less than that.
    mutating func arrived(
        _ waiter: Waiter,
        for row: Int64,
        until: ContinuousClock.Instant,
        grace: Duration? = nil,
        at now: ContinuousClock.Instant
    ) -> Admission {
        guard let known = rows[row] else { return .notLocked }
        guard !known.isOver(until: until, grace: grace, at: now) else { return .tooLate }
        guard known.waiting.count < maximumWaitingForOne, waiting < maximumWaiting else {
            refused += 1
            return .refused
        }
        rows[row]?.waiting.append(Waiting(until: until, grace: grace, waiter: waiter))
        waiting += 1
        return .waiting
    }

    /// The row that the watch waits for next. Repeated calls go through the rows in turn.
    mutating func nextTurn() -> Int64? {
        guard let row = turns.first else { return nil }
        turns.append(turns.removeFirst())
        return row
    }

    /// Rows were found free.
    ///
    /// - Returns: the callers that waited, in their order; and each freed row that had been announced, with the time that it was locked
    mutating func freed(_ free: [Int64], at now: ContinuousClock.Instant) -> (waiters: [Waiter], announced: [(row: Int64, after: Duration)])
    {
        var waiters: [Waiter] = []
        var announced: [(row: Int64, after: Duration)] = []
        for id in free {
            guard let row = rows.removeValue(forKey: id) else { continue }
            waiters += row.waiting.map(\.waiter)
            if row.isAnnounced { announced.append((id, now - row.since)) }
        }
        waiting -= waiters.count
        turns.removeAll { rows[$0] == nil }
        return (waiters, announced)
    }

    /// Takes out the callers whose time is over.
    mutating func expired(at now: ContinuousClock.Instant) -> [Waiter] {
        var waiters: [Waiter] = []
        for id in turns {
            guard let row = rows[id], row.waiting.contains(where: { row.isOver($0, at: now) }) else { continue }
            waiters += row.waiting.filter { row.isOver($0, at: now) }.map(\.waiter)
            rows[id]?.waiting.removeAll { row.isOver($0, at: now) }
        }
        waiting -= waiters.count
        timedOut += waiters.count
        return waiters
    }

    /// The rows that have been seen locked for at least `after`. Each is named once.
    mutating func toAnnounce(after: Duration) -> [Int64] {
        var late: [Int64] = []
        for id in turns {
            guard let row = rows[id], !row.isAnnounced, row.age >= after else { continue }
            rows[id]?.isAnnounced = true
            late.append(id)
        }
        return late
    }

    /// Forgets all rows. Returns the callers that waited.
    mutating func forgetAll() -> [Waiter] {
        let waiters = turns.flatMap { rows[$0]?.waiting.map(\.waiter) ?? [] }
        rows = [:]
        turns = []
        waiting = 0
        return waiters
    }
}
