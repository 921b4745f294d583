// Whoever writes many rows in one statement waits for the one that somebody else's open transaction has locked, and with it wait all the others. A group writer
// therefore waits for a lock only briefly. What it could not get it asks `locked(among:_:)` about, leaves those rows' members here, and goes on with the rest.
//
// Invariant: every waiter is called exactly once. A row that was found locked stays known as locked until this watch could lock it or has lost its connection.
//
// Who suffers: only callers of locked rows share this watch. One row is waited for at a time, for `turn`, so that others who want it too cannot always be first;
// between two turns all rows are looked at without waiting. A row that is free again is found within two turns, whatever the others do.
//
// Bounds: one connection and one thread, whatever is locked; those of the machine; each waiter's own time, noticed with a delay of one round.
// Stops: `shutDown`; a watch with nothing to look at sleeps.

import Algorithms
import Synchronization

/// Watches the rows of one table that others hold locked, and keeps who waits for them.
public final class LockedRows: Sendable {
    /// How a wait ended.
    public enum Ending: Sendable, Hashable {
        /// The row could be locked just now: try again.
        case free
        /// The time is over, or nobody can tell since the database is away.
        case timedOut
        /// The watch was shut down.
        case shutDown
    }

    /// What becomes of a caller who wants a row.
    public enum Admission: Sendable, Hashable {
        /// The row is not known to be locked: nobody will be called.
        case notLocked
        /// The waiter will be called, on the watch's thread.
        case waiting
        /// Too many wait already: nobody will be called.
        case refused
        /// The time is over already, or the row has been locked for longer than the caller would wait: nobody will be called.
        case tooLate
    }

    /// What an operator may want to read.
    public enum Change: Sendable {
        /// These rows have been locked for a second or longer.
        case locked([Int64])
        /// One of them is free again.
        case freed(Int64, after: Duration)
    }

    /// What a metric reads.
    public struct Figures: Sendable, Hashable {
        /// Rows known to be locked.
        public var locked: Int
        /// Callers that wait for them.
        public var waiting: Int
        /// Rows found locked, since the start.
        public var found: Int
        /// Callers turned away because too many waited, since the start.
        public var refused: Int
        /// Callers whose time was over, since the start.
        public var timedOut: Int
    }

    /// Whom a wait's end is told.
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
    ///   - table: the table, and `id` its primary key, a `bigint`: words of the program, never of a caller.
    ///   - turn: how long one row is waited for before it is the next one's turn.
    ///   - maximumWaitingForOne: callers that may wait for one row.
    ///   - maximumWaiting: callers that may wait for all rows together.
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
        self.worker = try PostgresWorker(configuration: configuration, name: "locked-rows", maximumQueued: 4)
        self.state = Mutex(
            State(
                machine: LockedRowsMachine(
                    maximumRows: 65_536,
                    maximumWaitingForOne: maximumWaitingForOne,
                    maximumWaiting: maximumWaiting
                )
            )
        )
        // Whoever can be locked without waiting is free. The lock ends with the statement.
        self.lockedSQL = """
            with free as materialized (select \(id) from \(table) where \(id) = any($1) for update skip locked)
            select r.\(id) from \(table) r where r.\(id) = any($1) and not exists (select from free f where f.\(id) = r.\(id))
            """
        self.turnSQL = "select 1 from \(table) where \(id) = $1 for update"
        self.onChange = onChange
    }

    /// Whether no row is known to be locked: one relaxed load, for those who ask for every request.
    public var isEmpty: Bool { count.load(ordering: .relaxed) == 0 }

    /// Whether a row is known to be locked.
    public func isLocked(_ row: Int64) -> Bool { !isEmpty && state.withLock { $0.machine.isLocked(row) } }

    /// The figures now.
    public var figures: Figures {
        state.withLock { state in
            let machine = state.machine
            return Figures(
                locked: machine.locked.count,
                waiting: machine.waiting,
                found: machine.found,
                refused: machine.refused,
                timedOut: machine.timedOut
            )
        }
    }

    /// Which of these rows another transaction holds locked now. Waits for none of them. For a session outside of a transaction: inside, the free ones would stay locked.
    public func locked(among rows: [Int64], _ session: PostgresSession) throws(PostgresError) -> Set<Int64> {
        var locked: Set<Int64> = []
        try session.query(lockedSQL, [.ints(rows)]) { (row) throws(PostgresError) in locked.insert(try row.decode(0, as: Int64.self)) }
        return locked
    }

    /// Rows were found locked: they are watched until they are free.
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
    ///   - grace: for callers in a hurry: they wait only until the row has been locked for so long. So a row that several servers write in turn is waited for, and one that
    ///     somebody has forgotten is not.
    ///   - waiter: called once, on the watch's thread, if the answer is `waiting`.
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
    public func shutDown() async {
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
        // Ends when no row is known to be locked; whoever finds the next one starts it again.
        while true {
            let (turn, rows) = state.withLock { state -> (Int64?, [Int64]) in
                if state.machine.isEmpty { state.isWatching = false }
                return (state.machine.nextTurn(), state.machine.locked)
            }
            guard let turn else { return }
            do throws(PostgresError) {
                if try isFree(turn, session) { free([turn]) }
                for looked in rows.filter({ $0 != turn }).chunks(ofCount: Self.lookedAtOnce) {
                    let locked = try self.locked(among: Array(looked), session)
                    free(looked.filter { !locked.contains($0) })
                }
            } catch  where error.isLockTimeout {
                // The whole table is locked.
            } catch {
                // What is locked cannot be told. Callers hear that they shall come again; the next of them finds out.
                end(.timedOut)
            }
            let (expired, late) = state.withLock { state in
                (state.machine.expired(at: .now), state.machine.toAnnounce(after: Self.announcedAfter, at: .now))
            }
            for waiter in expired { waiter(.timedOut) }
            if !late.isEmpty { onChange(.locked(late)) }
        }
    }

    /// Waits one turn.
    private func isFree(_ row: Int64, _ session: PostgresSession) throws(PostgresError) -> Bool {
        do throws(PostgresError) {
            _ = try session.query(turnSQL, [.int(row)])
            return true
        } catch  where error.isLockTimeout {
            return false
        }
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
