// A statement that writes many rows waits for any of them that another open transaction has locked, and delays all its members. Therefore a group waits for a
// lock only briefly. Then it asks `locked(among:_:)` which rows are locked, leaves the members of those rows here, and goes on with the rest.
//
// Invariant: every waiter is called exactly once. A row that was found locked counts as locked until this watch could lock it, or has lost its connection.
//
// Who suffers: only callers of locked rows share this watch. It waits for one row at a time, for `turn`, so that it gets into the row's queue of locks even
//   where others want the row. Between two turns it looks at all rows without waiting. So a row that becomes free is found within two turns, whatever happens
//   to the other rows.
//
// Bounds: one connection and one thread, however many rows are locked; those of the machine; each waiter's own time, noticed with a delay of up to one round.
// Stops: `shutdown`. A watch without locked rows sleeps.

import Algorithms
import Synchronization

/// Watches the rows of one table that other transactions hold locked, and keeps the callers that wait for them.
public final class LockedRows: Sendable {
    /// How a wait ended.
    public enum Ending: Sendable, Hashable {
        /// The watch could lock the row just now. Try again.
        case free
        /// The waiter's time is over, or the database is away, so that nobody can tell.
        case timedOut
        case shutDown
    }

    /// The answer to a caller that wants a row.
    public enum Admission: Sendable, Hashable {
        /// The row is not known to be locked. The waiter will not be called.
        case notLocked
        /// The waiter will be called, on the watch's thread.
        case waiting
        /// Too many callers wait already. The waiter will not be called.
        case refused
        /// The waiter's time is over, or the row has been seen locked for longer than its grace. The waiter will not be called.
        case tooLate
    }

    /// A change that an operator may want to read.
    public enum Change: Sendable {
        /// These rows have been locked for a second or longer.
        case locked([Int64])
        /// One of the announced rows is free again.
        case freed(Int64, after: Duration)
    }

    /// Figures for metrics.
    public struct Snapshot: Sendable, Hashable {
        /// Rows known to be locked.
        public var locked: Int
        /// Callers that wait for them.
        public var waiting: Int
        /// Rows found locked, since the start.
        public var found: Int
        /// Callers that were turned away because too many waited, since the start.
        public var refused: Int
        /// Callers whose time ran out, since the start.
        public var timedOut: Int
    }

    /// Called with the end of a wait.
    public typealias Waiter = @Sendable (Ending) -> Void

    private struct State {
        var machine: LockedRowsMachine<Waiter>
        var isWatching = false
        var isShutDown = false
    }

    private static var announcedAfter: Duration { .seconds(1) }
    /// Rows in one look at most.
    private static var lookedAtOnce: Int { 1024 }

    private let state: Mutex<State>
    private let count = Atomic<Int>(0)
    private let worker: PostgresWorker
    private let lockedSQL: String
    private let turnSQL: String
    private let onChange: @Sendable (Change) -> Void

    /// Makes a watch; it connects when the first row is found locked.
    ///
    /// - Parameters:
    ///   - table: the table; `id` is its primary key, a `bigint`. Both become part of the SQL, so they must come from the program, never from a caller.
    ///   - turn: how long the watch waits for one row before it goes on to the next
    ///   - maximumWaitingForOne: callers that may wait for one row
    ///   - maximumWaiting: callers that may wait for all rows together
    public init(
        configuration: PostgresConfiguration,
        table: StaticString,
        id: StaticString,
        turn: Duration = .milliseconds(50),
        maximumWaitingForOne: Int = 512,
        maximumWaiting: Int = 4096,
        onChange: @escaping @Sendable (Change) -> Void = { _ in }
    ) throws(PostgresError) {
        var configuration = configuration
        configuration.lockTimeout = turn
        worker = try PostgresWorker(configuration: configuration, name: "locked-rows", maximumQueued: 4)
        state = Mutex(
            State(
                machine: LockedRowsMachine(
                    maximumRows: 65_536,
                    maximumWaitingForOne: maximumWaitingForOne,
                    maximumWaiting: maximumWaiting
                )
            )
        )
        // A row that this statement locks without waiting is free. The lock ends with the statement.
        lockedSQL = """
            with free as materialized (select \(id) from \(table) where \(id) = any($1) for update skip locked)
            select r.\(id) from \(table) r where r.\(id) = any($1) and not exists (select from free f where f.\(id) = r.\(id))
            """
        turnSQL = "select 1 from \(table) where \(id) = $1 for update"
        self.onChange = onChange
    }

    /// Whether no row is known to be locked. One relaxed load, so that it can be asked for every request.
    public var isEmpty: Bool { count.load(ordering: .relaxed) == 0 }

    /// Whether a row is known to be locked.
    public func isLocked(_ row: Int64) -> Bool { !isEmpty && state.withLock { $0.machine.isLocked(row) } }

    /// The present figures for metrics.
    public func snapshot() -> Snapshot {
        state.withLock { state in
            let machine = state.machine
            return Snapshot(
                locked: machine.locked.count,
                waiting: machine.waiting,
                found: machine.found,
                refused: machine.refused,
                timedOut: machine.timedOut
            )
        }
    }

    /// Which of these rows another transaction holds locked now. Waits for none of them. The session must be outside of a transaction, which would keep the
    /// free rows locked.
    public func locked(among rows: [Int64], _ session: PostgresSession) throws(PostgresError) -> Set<Int64> {
        var locked: Set<Int64> = []
        try session.query(lockedSQL, [.ints(rows)]) { (row) throws(PostgresError) in locked.insert(try row.decode(0, as: Int64.self)) }
        return locked
    }

    /// Rows were found locked. They are watched until they are free.
    public func found(_ rows: Set<Int64>) {
        let mustWatch = state.withLock { state in
            guard !state.isShutDown else { return false }
            state.machine.found(rows, at: .now)
            count.store(state.machine.locked.count, ordering: .relaxed)
            guard !state.isWatching, !state.machine.isEmpty else { return false }
            state.isWatching = true
            return true
        }
        if mustWatch { startWatch() }
    }

    /// Waits for a row that is known to be locked.
    ///
    /// - Parameters:
    ///   - grace: for impatient callers, who wait only while the row has been seen locked for less than this. They wait for a row that several servers, or
    ///     several groups of this one, write in turn, but not for one that an open transaction has forgotten.
    ///   - waiter: called once, on the watch's thread, if the answer is `waiting`
    public func wait(
        for row: Int64,
        until: ContinuousClock.Instant,
        grace: Duration? = nil,
        _ waiter: @escaping Waiter
    ) -> Admission {
        state.withLock { state in
            switch state.machine.arrived(waiter, for: row, until: until, grace: grace, at: .now) {
            case .notLocked: .notLocked
            case .waiting: .waiting
            case .refused: .refused
            case .tooLate: .tooLate
            }
        }
    }

    /// Ends every wait and closes the connection.
    public func shutdown() async {
        let waiters = state.withLock { state in
            state.isShutDown = true
            let waiters = state.machine.forgetAll()
            count.store(0, ordering: .relaxed)
            return waiters
        }
        for waiter in waiters { waiter(.shutDown) }
        await worker.shutdown()
    }

    private func startWatch() {
        do {
            try worker.submit { [self] session in watch(session) }
        } catch {
            end(.shutDown)
        }
    }

    // MARK: On the watch's thread

    private func watch(_ session: PostgresSession) {
        // The loop ends when no row is known to be locked. The next row that is found locked starts it again.
        while true {
            let (turn, rows) = state.withLock { state -> (Int64?, [Int64]) in
                if state.machine.isEmpty { state.isWatching = false }
                return (state.machine.nextTurn(), state.machine.locked)
            }
            guard let turn else { return }
            do throws(PostgresError) {
                if try isFree(turn, session) { free([turn]) } else { seenLocked([turn], at: .now) }
                for looked in rows.filter({ $0 != turn }).chunks(ofCount: Self.lookedAtOnce) {
                    let moment = ContinuousClock.now
                    let locked = try self.locked(among: Array(looked), session)
                    seenLocked(locked, at: moment)
                    free(looked.filter { !locked.contains($0) })
                }
            } catch  where error.isLockTimeout {
                // The whole table is locked.
            } catch {
                // It is unknown which rows are locked. The callers are told to try again, and the next one finds out.
                end(.timedOut)
            }
            let (expired, late) = state.withLock { state in
                (state.machine.expired(at: .now), state.machine.toAnnounce(after: Self.announcedAfter))
            }
            for waiter in expired { waiter(.timedOut) }
            if !late.isEmpty { onChange(.locked(late)) }
        }
    }

    /// Waits for a row, for one turn.
    private func isFree(_ row: Int64, _ session: PostgresSession) throws(PostgresError) -> Bool {
        do throws(PostgresError) {
            _ = try session.query(turnSQL, [.int(row)])
            return true
        } catch  where error.isLockTimeout {
            return false
        }
    }

    private func seenLocked(_ rows: Set<Int64>, at moment: ContinuousClock.Instant) {
        state.withLock { $0.machine.seenLocked(rows, at: moment) }
    }

    private func free(_ rows: [Int64]) {
        guard !rows.isEmpty else { return }
        let (waiters, announced) = state.withLock { state in
            let freed = state.machine.freed(rows, at: .now)
            count.store(state.machine.locked.count, ordering: .relaxed)
            return freed
        }
        for waiter in waiters { waiter(.free) }
        for (row, after) in announced { onChange(.freed(row, after: after)) }
    }

    private func end(_ ending: Ending) {
        let waiters = state.withLock { state in
            let waiters = state.machine.forgetAll()
            count.store(0, ordering: .relaxed)
            return waiters
        }
        for waiter in waiters { waiter(ending) }
    }
}
