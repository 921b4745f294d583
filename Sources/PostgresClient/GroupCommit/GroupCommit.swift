// Group commit: members that come while a statement runs go together in the next one. A group has one connection and one thread.
//
// Invariant: every member is answered exactly once: by `commit`, which runs on this group's thread, or by `fail`.
//
// Who suffers: the members of one statement wait for its locks together, and new members wait for the statement. Therefore, in a group whose members need a row
//   each, members of locked rows wait apart (`putOut`, `LockedRows`). They come back when the row is free, or fail when their time is over. `GroupWrite`
//   describes the rest.
//
// Bounds: those of `Committer` and of `LockedRows`. A single member is sent at once, without a timer. Only a group that gathers (`Gathering`) or keeps a pace
//   (`Pace`) may hold back a few members for a bounded time, so that more can join.
// Stop: `abandon` fails waiting and later members; `shutdown` has waiting members written first.

public import BlockingThreads
public import Synchronization

/// Why a member was not written. Nothing of it was written.
public enum GroupFailure: Hashable, Sendable {
    /// Too many members wait.
    case full
    /// The group was stopped, or its thread has ended.
    case stopped
    /// Another transaction has held the member's row locked for longer than the member may wait.
    case rowLocked
}

extension GroupFailure {
    /// This failure as the error of a statement that was never sent.
    public var error: PostgresError {
        switch self {
        case .full: PostgresError(code: .poolExhausted, message: "too many wait already")
        case .stopped: PostgresError(code: .shutDown, message: "the group's thread was shut down")
        case .rowLocked:
            PostgresError(code: .server(sqlState: "55P03"), message: "the row is locked by another transaction", sqlState: "55P03")
        }
    }
}

/// A member that needs one row of a table. Another transaction may hold that row locked.
public protocol RowMember: Sendable {
    /// The row's key.
    var row: Int64 { get }
    /// The member waits only while its row has been locked for less than this; nil: it waits for its whole patience. See
    /// ``LockedRows/wait(for:until:grace:_:)``.
    var grace: Duration? { get }
    /// When the member stops waiting for its row; nil until it is put out of a statement for the first time.
    var waitsUntil: ContinuousClock.Instant? { get set }
}

/// Gathers members while a statement runs, and then hands all of them to `commit`, on a connection and a thread of its own.
public final class GroupCommit<Member: Sendable>: Sendable {
    /// A rule for waiting briefly until more members have come. It pays where sending a group costs more than the members in it do.
    public struct Gathering: Sendable {
        /// With this many members the group goes at once.
        public var enough: Int
        /// How long the group waits at most.
        public var time: Duration
        /// Whether these members are likely to be followed by more, so that waiting is worthwhile.
        public var follows: @Sendable (ArraySlice<Member>) -> Bool

        /// Creates a rule.
        public init(enough: Int, time: Duration, follows: @escaping @Sendable (ArraySlice<Member>) -> Bool) {
            self.enough = enough
            self.time = time
            self.follows = follows
        }
    }

    /// The place where members of locked rows wait.
    public struct RowWaits: Sendable {
        /// The rows known to be locked.
        public var rows: LockedRows
        /// How long one member waits for its row.
        public var patience: Duration
        /// Whether a member that comes back when its row is free is let in even if the group is full.
        public var comesBackExempt: Bool

        /// Creates a place to wait.
        public init(rows: LockedRows, patience: Duration, comesBackExempt: Bool) {
            self.rows = rows
            self.patience = patience
            self.comesBackExempt = comesBackExempt
        }
    }

    /// Writes members and answers each of them. It may postpone the answers in the session, and passes members of locked rows to ``putOut(of:_:)``.
    public typealias Commit = @Sendable (_ group: GroupCommit, _ session: PostgresSession, _ members: ArraySlice<Member>) -> Void
    /// Answers members that are not written. Called on any thread, under no lock.
    public typealias Fail = @Sendable (_ members: ArraySlice<Member>, _ why: GroupFailure) -> Void

    @usableFromInline
    struct State: Sendable {
        @usableFromInline var committer: Committer<Member>
        @usableFromInline var isDraining = false
        /// How many members have a group that is held back go at once; `Int.max` while none is held back.
        @usableFromInline var heldUntil = Int.max
        @usableFromInline var isStopped = false
        /// The members of the last group.
        @usableFromInline var last = 0
        /// When the last group began, if the group keeps a pace.
        @usableFromInline var began: ContinuousClock.Instant?
        /// Until then no pace is kept, because there is no rush.
        @usableFromInline var restsUntil: ContinuousClock.Instant?
        /// Groups in a row that were held back and were not worth it.
        @usableFromInline var misses = 0

        init(_ committer: Committer<Member>) { self.committer = committer }
    }

    /// What `add` must do after it has released the lock.
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
    @usableFromInline let pace: Pace?
    @usableFromInline let enough = WakeSignal()
    @usableFromInline let turns: GroupTurns?
    @usableFromInline let turn = WakeSignal()
    @usableFromInline let rowWaits: RowWaits?
    @usableFromInline let commit: Commit
    @usableFromInline let fail: Fail

    /// Makes a group on a worker's thread. No other long job may run on that worker.
    ///
    /// - Parameters:
    ///   - capacity: how many members wait at most; the next one fails
    ///   - maximumBatch: how many members are handed to `commit` at once
    ///   - key: members with the same key never share a statement; nil: any members may
    ///   - gathering: when to wait for more members; nil: a group goes as soon as the one before it is written, however small it is
    ///   - pace: how fast small groups may follow each other; nil: as fast as they can
    ///   - turns: those with whom the group takes turns in a rush; nil: it never waits for others
    ///   - rowWaits: for ``RowMember`` members: where members of locked rows wait
    public init(
        worker: PostgresWorker,
        capacity: Int,
        maximumBatch: Int,
        key: (@Sendable (Member) -> String)? = nil,
        gathering: Gathering? = nil,
        pace: Pace? = nil,
        turns: GroupTurns? = nil,
        rowWaits: RowWaits? = nil,
        commit: @escaping Commit,
        fail: @escaping Fail
    ) {
        self.worker = worker
        self.gathering = gathering
        self.pace = pace
        self.turns = turns
        self.rowWaits = rowWaits
        self.commit = commit
        self.fail = fail
        state = Mutex(State(Committer(capacity: capacity, maximumBatch: maximumBatch, key: key)))
    }

    /// Members that wait.
    public var waiting: Int { state.withLock { $0.committer.count } }
    /// Whether a few members are being held back so that more can join.
    public var isHoldingBack: Bool { state.withLock { $0.heldUntil < .max } }
    /// Members that failed because too many waited, since the start.
    public var refused: Int { state.withLock { $0.committer.refused } }

    /// Opens the connection. A failure is reported to the worker's observer, and the next group tries to connect again.
    public func connect() async { try? await worker.connect() }

    /// What keeps this group's own session from writing; nil if nothing does.
    public func troubleWriting() async -> PostgresError? { await worker.troubleWriting() }

    /// Has waiting members written, then ends the thread. Later members fail.
    public func shutdown() async { await worker.shutdown() }

    /// Fails waiting and later members.
    public func abandon() {
        state.withLock { $0.isStopped = true }
        failWaiting()
    }

    /// Adds a member.
    ///
    /// - Parameter isExempt: the member was let in before, and must be let in now even if too many wait
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
            guard state.committer.count >= state.heldUntil else { return .none }
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
                // The thread has ended, or has no room for the job, so nobody would write the waiting members.
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
        // The loop ends when no member waits. Adding the next member starts it again.
        var isWorthWaiting = false
        while true {
            if let pace { keep(pace, session) }
            let hasTurn = takeTurn(session)
            let (batch, isAll) = state.withLock { state in
                let batch = state.committer.connectionFreed()
                if batch.isEmpty { state.isDraining = false } else { state.last = batch.count }
                return (batch, state.committer.count == 0)
            }
            if !batch.isEmpty { commit(self, session, batch[...]) }
            if hasTurn { turns?.end() }
            if batch.isEmpty { return }
            guard let gathering else { continue }
            isWorthWaiting = isWorthWaiting || gathering.follows(batch[...])
            guard isAll else { continue }
            if isWorthWaiting { gather(gathering, session) }
            isWorthWaiting = false
        }
    }

    /// In a rush, waits until the other groups have written, if fewer than enough members have come.
    /// - Returns: whether this group has the turn
    @usableFromInline
    func takeTurn(_ session: PostgresSession) -> Bool {
        guard let turns else { return false }
        let (last, waiting) = state.withLock { ($0.last, $0.committer.count) }
        guard last >= turns.rush, waiting > 0, waiting < turns.enough else { return false }
        // The members of the last group are answered before this thread waits.
        session.doPostponed()
        return turns.take(turn)
    }

    /// In a rush, if few members wait and the last group began lately, waits until enough have come or the pace allows the next group.
    @usableFromInline
    func keep(_ pace: Pace, _ session: PostgresSession) {
        let now = ContinuousClock.now
        let enough = pace.enough()
        let next = state.withLock { state -> ContinuousClock.Instant? in
            let count = state.committer.count
            guard count > 0 else { return nil }
            let next = state.began.map { $0 + pace.interval } ?? now
            let isResting = state.restsUntil.map { $0 > now } ?? false
            guard count < enough, next > now, !isResting, !state.isStopped else {
                state.began = now
                return nil
            }
            state.heldUntil = enough
            return next
        }
        guard let next else { return }
        // The members of the last group are answered before this thread waits.
        session.doPostponed()
        _ = self.enough.wait(for: next - .now)
        let end = ContinuousClock.now
        state.withLock { state in
            state.heldUntil = .max
            state.began = end
            if state.committer.count < enough / pace.leastPart {
                state.restsUntil = end + pace.rest(after: state.misses)
                state.misses = min(state.misses + 1, Pace.mostMisses)
            } else {
                (state.restsUntil, state.misses) = (nil, 0)
            }
        }
    }

    /// If members have come, but few, waits until enough have come or the time is over.
    @usableFromInline
    func gather(_ gathering: Gathering, _ session: PostgresSession) {
        let isFew = state.withLock { state in
            guard state.committer.count > 0, state.committer.count < gathering.enough else { return false }
            state.heldUntil = gathering.enough
            return true
        }
        guard isFew else { return }
        // The members of the last group are answered before this thread waits.
        session.doPostponed()
        _ = enough.wait(for: gathering.time)
        state.withLock { $0.heldUntil = .max }
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

    /// For `commit`, after a statement waited for a lock in vain: takes the members whose rows are locked out of its part, and lets them wait apart. To be
    /// called outside of a transaction.
    ///
    /// - Returns: the members that are left; nil if no row is locked now
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
