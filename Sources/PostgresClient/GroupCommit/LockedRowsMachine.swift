/// Which rows of a table are known to be locked by somebody's open transaction, and who waits for them, as a value: it decides, ``LockedRows`` acts after it has
/// let go of the lock.
///
/// Invariant: who waits is handed out exactly once: by `freed`, `expired` or `forgetAll`.
///
/// Bounds: `maximumRows` rows; `maximumWaitingForOne` wait for one row and `maximumWaiting` for all together, so that the callers of a locked row leave room for the others'.
struct LockedRowsMachine<Waiter> {
    enum Admission: Hashable {
        /// The row is not known to be locked: nothing was kept.
        case notLocked
        /// It waits.
        case waiting
        /// Too many wait already: nothing was kept.
        case refused
        /// The row has been locked for too long already: nothing was kept.
        case tooLate
    }

    private struct Row {
        var since: ContinuousClock.Instant
        var isAnnounced = false
        var waiting: [(until: ContinuousClock.Instant, waiter: Waiter)] = []
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

    /// Rows were found locked. Beyond the bound they are not noted.
    mutating func found(_ locked: some Sequence<Int64>, at now: ContinuousClock.Instant) {
        for row in locked where rows[row] == nil && rows.count < maximumRows {
            rows[row] = Row(since: now)
            turns.append(row)
            found += 1
        }
    }

    /// A caller wants a row. `grace`: he waits only until the row has been locked for so long.
    mutating func arrived(
        _ waiter: Waiter,
        for row: Int64,
        until: ContinuousClock.Instant,
        grace: Duration? = nil,
        at now: ContinuousClock.Instant
    ) -> Admission {
        guard let since = rows[row]?.since, let count = rows[row]?.waiting.count else { return .notLocked }
        let until = grace.map { min(until, since + $0) } ?? until
        guard now < until else { return .tooLate }
        guard count < maximumWaitingForOne, waiting < maximumWaiting else {
            refused += 1
            return .refused
        }
        rows[row]?.waiting.append((until, waiter))
        waiting += 1
        return .waiting
    }

    /// The row whose turn it is to be waited for; the next call names another if there is one.
    mutating func nextTurn() -> Int64? {
        guard let row = turns.first else { return nil }
        turns.append(turns.removeFirst())
        return row
    }

    /// Rows were found free.
    ///
    /// - Returns: who waited, in their order, and for how long each row was locked that had been announced.
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

    /// Those whose time is over.
    mutating func expired(at now: ContinuousClock.Instant) -> [Waiter] {
        var waiters: [Waiter] = []
        for id in turns {
            guard let row = rows[id], row.waiting.contains(where: { $0.until <= now }) else { continue }
            waiters += row.waiting.filter { $0.until <= now }.map(\.waiter)
            rows[id]?.waiting.removeAll { $0.until <= now }
        }
        waiting -= waiters.count
        timedOut += waiters.count
        return waiters
    }

    /// Rows that have been locked for `after` now, each told once.
    mutating func toAnnounce(after: Duration, at now: ContinuousClock.Instant) -> [Int64] {
        var late: [Int64] = []
        for id in turns {
            guard let row = rows[id], !row.isAnnounced, now - row.since >= after else { continue }
            rows[id]?.isAnnounced = true
            late.append(id)
        }
        return late
    }

    /// Nothing is known any more. Returns who waited.
    mutating func forgetAll() -> [Waiter] {
        let waiters = turns.flatMap { rows[$0]?.waiting.map(\.waiter) ?? [] }
        rows = [:]
        turns = []
        waiting = 0
        return waiters
    }
}
