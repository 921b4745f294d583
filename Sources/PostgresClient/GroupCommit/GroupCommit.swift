// Group commit: what comes while a statement is at PostgreSQL goes together in the next one, over one connection and thread.
//
// Invariant: every member is answered exactly once: by `commit`, which takes it on this group's thread, or by `fail`.
//
// Who suffers: the members of one statement wait for its locks together, and what comes meanwhile waits for the statement. So a group whose members need a row each
//   lets those of locked rows wait apart (`putOut`, `LockedRows`): they come back when the row is free, or fail when their time is over. See `GroupWrite` for the rest.
//
// Bounds: those of `Committer` and of `LockedRows`. One member alone goes at once: no timer delays it. Where the group gathers, the few that came while a group was
//   written wait for more, for a bounded time.
// Stop: `stop` fails what waits and what comes; `shutdown` lets what waits be written first.

public import BlockingThreads
public import Synchronization

/// Why members of a group were not written. Nothing of them was.
public enum GroupFailure: Hashable, Sendable {
    /// Too many wait.
    case full
    /// The group has no thread any more, or was stopped.
    case stopped
    /// The member's row is locked by somebody else's transaction, for longer than the member may wait.
    case rowLocked
}

extension GroupFailure {
    /// The failure as an error of a statement that was never sent.
    public var error: PostgresError {
        switch self {
        case .full: PostgresError(code: .poolExhausted, message: "too many wait already")
        case .stopped: PostgresError(code: .shutDown, message: "the group's thread was shut down")
        case .rowLocked:
            PostgresError(code: .server(sqlState: "55P03"), message: "the row is locked by another transaction", sqlState: "55P03")
        }
    }
}

/// A member of a group that needs one row of a table, which somebody else's transaction may hold locked.
public protocol RowMember: Sendable {
    /// The row's key.
    var row: Int64 { get }
    /// Nil, or the member waits only until its row has been locked for so long; see ``LockedRows/wait(for:until:grace:_:)``.
    var grace: Duration? { get }
    /// When the member has waited long enough for its row; nil before it is put out for the first time.
    var waitsUntil: ContinuousClock.Instant? { get set }
}

/// Gathers members while a statement is at PostgreSQL and hands over what has gathered, on a connection and thread of its own.
public final class GroupCommit<Member: Sendable>: Sendable {
    /// Waiting a little for more members after a group, where a group costs the rest of its way more than the members in it do.
    public struct Gathering: Sendable {
        /// So many members go at once.
        public var enough: Int
        /// The longest wait.
        public var time: Duration
        /// Whether what follows these members is worth waiting for.
        public var follows: @Sendable (ArraySlice<Member>) -> Bool

        /// Makes a rule.
        public init(enough: Int, time: Duration, follows: @escaping @Sendable (ArraySlice<Member>) -> Bool) {
            self.enough = enough
            self.time = time
            self.follows = follows
        }
    }

    /// Where members wait whose rows are locked.
    public struct RowWaits: Sendable {
        /// The rows known to be locked.
        public var rows: LockedRows
        /// How long one member waits for its row.
        public var patience: Duration
        /// Whether a member whose row is free again is let in although the group is full.
        public var comesBackExempt: Bool

        /// Makes a place to wait.
        public init(rows: LockedRows, patience: Duration, comesBackExempt: Bool) {
            self.rows = rows
            self.patience = patience
            self.comesBackExempt = comesBackExempt
        }
    }

    /// Writes members and answers each of them, which it may postpone in the session; members of locked rows it gives to ``putOut(of:_:)``.
    public typealias Commit = @Sendable (_ group: GroupCommit, _ session: PostgresSession, _ members: ArraySlice<Member>) -> Void
    /// Answers members that are not written. Called on any thread, under no lock.
    public typealias Fail = @Sendable (_ members: ArraySlice<Member>, _ why: GroupFailure) -> Void

    @usableFromInline
    struct State: Sendable {
        @usableFromInline var committer: Committer<Member>
        @usableFromInline var isDraining = false
        @usableFromInline var isGathering = false
        @usableFromInline var isStopped = false

        init(_ committer: Committer<Member>) { self.committer = committer }
    }

    /// What `add` has to do once it has let go of the lock.
    @usableFromInline
    enum AfterAdd {
        case none
        case wake
        case endGathering
        case refuse(GroupFailure)
    }

    @usableFromInline let state: Mutex<State>
    @usableFromInline let worker: PostgresWorker
    @usableFromInline let gathering: Gathering?
    @usableFromInline let enough = WakeSignal()
    @usableFromInline let rowWaits: RowWaits?
    @usableFromInline let commit: Commit
    @usableFromInline let fail: Fail

    /// Makes a group over a worker's thread, on which nothing else waits for long.
    ///
    /// - Parameters:
    ///   - capacity: members that wait at most; the next one fails.
    ///   - maximumBatch: members handed to `commit` at once.
    ///   - key: tells which members must not share a statement; nil: all may.
    ///   - gathering: nil: what has come while a group was written goes when it is written, however little it is.
    ///   - rowWaits: for ``RowMember`` members: where those of locked rows wait.
    public init(
        worker: PostgresWorker,
        capacity: Int,
        maximumBatch: Int,
        key: (@Sendable (Member) -> String)? = nil,
        gathering: Gathering? = nil,
        rowWaits: RowWaits? = nil,
        commit: @escaping Commit,
        fail: @escaping Fail
    ) {
        self.worker = worker
        self.gathering = gathering
        self.rowWaits = rowWaits
        self.commit = commit
        self.fail = fail
        self.state = Mutex(State(Committer(capacity: capacity, maximumBatch: maximumBatch, key: key)))
    }

    /// Members that wait.
    public var waiting: Int { state.withLock { $0.committer.count } }
    /// Members that failed because too many waited, since the start.
    public var refused: Int { state.withLock { $0.committer.refused } }

    /// Opens the connection. Trouble is told by the worker's observer, and the next group connects.
    public func connect() async { try? await worker.connect() }

    /// What keeps this very group from writing, nil if nothing does.
    public func troubleWriting() async -> PostgresError? { await worker.troubleWriting() }

    /// Lets what waits be written, then ends the thread. Members that come later fail.
    public func shutdown() async { await worker.shutdown() }

    /// Fails what waits, and what comes from now on.
    public func stop() {
        state.withLock { $0.isStopped = true }
        failWaiting()
    }

    /// Adds a member.
    ///
    /// - Parameter isExempt: it was let in before and must not be turned away now because too many wait.
    /// - Returns: false if the member failed instead.
    @inlinable
    @discardableResult
    public func add(_ member: Member, isExempt: Bool = false) -> Bool {
        let next = state.withLock { state -> AfterAdd in
            if state.isStopped { return .refuse(.stopped) }
            guard state.committer.arrived(member, isExempt: isExempt) == .accepted else { return .refuse(.full) }
            if !state.isDraining {
                state.isDraining = true
                return .wake
            }
            guard state.isGathering, let gathering, state.committer.count >= gathering.enough else { return .none }
            return .endGathering
        }
        switch next {
        case .none: return true
        case .endGathering:
            enough.signal()
            return true
        case .refuse(let why):
            fail([member], why)
            return false
        case .wake:
            do throws(PostgresError) {
                try worker.submit { [self] session in drain(session) }
            } catch {
                // The thread is gone, or has no room for the job: what waits has nobody to write it.
                failWaiting()
            }
            return true
        }
    }

    @usableFromInline
    func failWaiting() {
        while true {
            let batch = state.withLock { state in
                let batch = state.committer.connectionFreed()
                if batch.isEmpty { state.isDraining = false }
                return batch
            }
            if batch.isEmpty { return }
            fail(batch[...], .stopped)
        }
    }

    // MARK: On the group's thread

    @inlinable
    func drain(_ session: PostgresSession) {
        // Ends when nothing waits; whoever adds the next member wakes it again.
        var isWorthWaiting = false
        while true {
            let (batch, isAll) = state.withLock { state in
                let batch = state.committer.connectionFreed()
                if batch.isEmpty { state.isDraining = false }
                return (batch, state.committer.count == 0)
            }
            if batch.isEmpty { return }
            commit(self, session, batch[...])
            guard let gathering else { continue }
            isWorthWaiting = isWorthWaiting || gathering.follows(batch[...])
            guard isAll else { continue }
            if isWorthWaiting { gather(gathering, session) }
            isWorthWaiting = false
        }
    }

    /// Waits until enough have come or the time is over, where some have come, but few.
    @usableFromInline
    func gather(_ gathering: Gathering, _ session: PostgresSession) {
        let isFew = state.withLock { state in
            state.isGathering = state.committer.count > 0 && state.committer.count < gathering.enough
            return state.isGathering
        }
        guard isFew else { return }
        // Those of the last group are answered first.
        session.doPostponed()
        _ = enough.wait(for: gathering.time)
        state.withLock { $0.isGathering = false }
    }
}

extension GroupCommit where Member: RowMember {
    /// Adds a member, or lets it wait apart if its row is known to be locked.
    ///
    /// - Returns: false if the member failed instead.
    @inlinable
    @discardableResult
    public func addOrWait(_ member: Member, isExempt: Bool = false) -> Bool {
        if let rowWaits, !rowWaits.rows.isEmpty, rowWaits.rows.isLocked(member.row) { return waitForRow(member, rowWaits) }
        return add(member, isExempt: isExempt)
    }

    /// Takes the members whose rows others hold locked out of a part whose statement waited in vain: they wait apart. For `commit`, outside of a transaction.
    ///
    /// - Returns: the others; nil if no row is locked now.
    public func putOut(of part: ArraySlice<Member>, _ session: PostgresSession) throws(PostgresError) -> ArraySlice<Member>? {
        guard let rowWaits else { return nil }
        let found = try rowWaits.rows.locked(among: Set(part.map(\.row)).sorted(), session)
        guard !found.isEmpty else { return nil }
        rowWaits.rows.found(found)
        var rest: [Member] = []
        var out: [Member] = []
        for member in part {
            if found.contains(member.row) { out.append(member) } else { rest.append(member) }
        }
        for member in out { waitForRow(member, rowWaits) }
        return rest[...]
    }

    @usableFromInline
    @discardableResult
    func waitForRow(_ member: Member, _ rowWaits: RowWaits) -> Bool {
        var member = member
        let now = ContinuousClock.now
        let until = member.waitsUntil ?? now + rowWaits.patience
        member.waitsUntil = until
        let waiting = member
        let admission = rowWaits.rows.wait(for: member.row, until: until, grace: member.grace) { ending in
            switch ending {
            case .free: self.addOrWait(waiting, isExempt: rowWaits.comesBackExempt)
            case .timedOut: self.fail([waiting], .rowLocked)
            case .shutDown: self.fail([waiting], .stopped)
            }
        }
        switch admission {
        case .waiting: return true
        case .notLocked where now < until: return addOrWait(waiting, isExempt: rowWaits.comesBackExempt)
        case .notLocked, .refused, .tooLate:
            fail([waiting], .rowLocked)
            return false
        }
    }
}
