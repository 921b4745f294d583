// One lane of group commit: a queue, a thread, a connection.
//
// Invariant: every member is answered exactly once: with a decision, or with `unknown`, or with `notRun`.
//
// Who suffers: the members of one statement wait for its locks together, and what comes meanwhile waits for the lane. So the lane's session waits for a lock only
//   `LedgerConfiguration.rowWait`. Then the products whose rows somebody else's transaction holds are put out: their members wait apart (`LockedRows`), or are told *lock
//   timeout*, once the row has been locked for longer than `grace`, if they are not patient; as are those that come while the row is known to be locked. The rest goes on together.
//
// Bounds: the committer's; a batch that deadlocked is tried `maximumDeadlockRetries` times; one that failed for a bad member is halved until that member is
//   alone. A batch that waits in vain for another lock than a product's row is tried once more, then halved, for `patience` altogether.
// Stop: after `shutDown`, waiting members are answered `notRun`.

import NIOCore
import PostgresClient
import Synchronization

/// A request in a lane, and where its answer goes.
struct LaneMember<Request: Sendable, Reply: Sendable>: Sendable {
    let request: Request
    /// The loop that `answer` is called on; nil: the lane's own thread.
    let eventLoop: (any EventLoop)?
    /// Whether it waits for a row that has been locked for a while; else it is told *lock timeout* at once.
    var isPatient = true
    /// When it has waited long enough for its row; nil before it is put out for the first time.
    var waitsUntil: ContinuousClock.Instant?
    let answer: @Sendable (Result<Reply, CommitFailure>) -> Void
}

/// What one lane has done, for metrics.
public struct LaneFigures: Sendable {
    /// Members that wait now.
    public var waiting = 0
    /// Statements that were sent.
    public var batches: UInt64 = 0
    /// Members in them.
    public var members: UInt64 = 0
    /// The largest batch.
    public var largestBatch = 0
    /// Members refused because the lane was full.
    public var refused: UInt64 = 0
    /// Statements rolled back by the server.
    public var rolledBack: UInt64 = 0
    /// Statements whose outcome is unknown.
    public var unknown: UInt64 = 0
    /// Members put out of a batch because their product's row was locked.
    public var putOut: UInt64 = 0
    /// Seconds spent in statements.
    public var seconds: Double = 0
}

/// What the caller of `enqueue` has to do once it has let go of the lock.
private enum AfterEnqueue {
    case wake
    case none
    case refuse(Unavailable)
}

final class LedgerLane<Request: Sendable, Reply: Sendable>: Sendable {
    typealias Member = LaneMember<Request, Reply>

    private struct State: Sendable {
        var committer: Committer<Member>
        var isDraining = false
        var isShutDown = false
        var figures = LaneFigures()
    }

    private static var maximumDeadlockRetries: Int { 5 }
    /// How long a row may have been locked before members that are not patient give it up: longer than other servers' groups have it, even on a slow disk.
    private static var grace: Duration { .milliseconds(100) }

    private let state: Mutex<State>
    private let worker: PostgresWorker
    /// The products whose rows are known to be locked; shared by all lanes.
    private let locked: LockedRows
    /// How long one member waits for a locked row, and a batch for another lock.
    private let patience: Duration
    private let product: @Sendable (Request) -> ProductID
    /// Sends one batch as one statement and returns a reply for each member, in order.
    private let send: @Sendable (PostgresSession, [Request]) throws(PostgresError) -> [Reply]

    init(
        worker: PostgresWorker,
        capacity: Int,
        maximumBatch: Int,
        locked: LockedRows,
        patience: Duration,
        key: @escaping @Sendable (Request) -> String,
        product: @escaping @Sendable (Request) -> ProductID,
        send: @escaping @Sendable (PostgresSession, [Request]) throws(PostgresError) -> [Reply]
    ) {
        self.worker = worker
        self.locked = locked
        self.patience = patience
        self.product = product
        self.send = send
        self.state = Mutex(State(committer: Committer(capacity: capacity, maximumBatch: maximumBatch) { key($0.request) }))
    }

    var figures: LaneFigures {
        state.withLock {
            var figures = $0.figures
            figures.waiting = $0.committer.count
            figures.refused = UInt64($0.committer.refused)
            return figures
        }
    }

    /// Queues one request. `isExempt`: it was sent before with an unknown outcome and must not be turned away now.
    func enqueue(_ member: Member, isExempt: Bool = false) {
        if !locked.isEmpty, locked.isLocked(product(member.request).rawValue) { return waitForRow(member) }
        let next: AfterEnqueue = state.withLock { state in
            if state.isShutDown { return .refuse(.ledgerDown) }
            guard state.committer.arrived(member, isExempt: isExempt) == .accepted else { return .refuse(.overloaded) }
            if state.isDraining { return .none }
            state.isDraining = true
            return .wake
        }
        switch next {
        case .none: break
        case .refuse(let why): deliver([(member, .failure(.notRun(why)))])
        case .wake:
            do {
                try worker.submit { session in self.drain(session) }
            } catch {
                failWaiting(.ledgerDown)
            }
        }
    }

    /// Answers what waits with `ledgerDown`, and what comes after.
    func shutDown() {
        state.withLock { $0.isShutDown = true }
        failWaiting(.ledgerDown)
    }

    private func failWaiting(_ why: Unavailable) {
        while true {
            let batch = state.withLock { state in
                let batch = state.committer.connectionFreed()
                if batch.isEmpty { state.isDraining = false }
                return batch
            }
            if batch.isEmpty { return }
            deliver(batch.map { ($0, .failure(.notRun(why))) })
        }
    }

    // MARK: On the lane's thread

    private func drain(_ session: PostgresSession) {
        while true {
            let batch = state.withLock { state in
                let batch = state.committer.connectionFreed()
                if batch.isEmpty { state.isDraining = false }
                return batch
            }
            if batch.isEmpty { return }
            execute(batch, session)
        }
    }

    /// A part of a batch that is sent as one statement.
    private struct Piece {
        var members: [Member]
        /// It has waited in vain before, for a lock that is no product's row.
        var hasWaited = false
    }

    private func execute(_ batch: [Member], _ session: PostgresSession) {
        let until = ContinuousClock.now + patience
        var deadlocks = 0
        var pieces = [Piece(members: batch)]
        // Ends: each round answers a piece, makes it smaller, halves it, or uses up one of its repeats.
        while let piece = pieces.popLast() {
            let members = piece.members
            let began = ContinuousClock.now
            do {
                let replies = try send(session, members.map(\.request))
                note(batch: members.count, since: began)
                guard replies.count == members.count else {
                    // The statement committed and its answer makes no sense: unknown, to be settled by sending it again.
                    deliver(members.map { ($0, .failure(.unknown)) })
                    continue
                }
                deliver(zip(members, replies).map { ($0, .success($1)) })
            } catch {
                note(batch: members.count, since: began, failed: error)
                switch Self.verdict(on: error) {
                case .again where deadlocks < Self.maximumDeadlockRetries:
                    deadlocks += 1
                    pieces.append(piece)
                case .again: deliver(members.map { ($0, .failure(.notRun(.lockTimeout))) })
                case .whole(let failure): deliver(members.map { ($0, .failure(failure)) })
                case .badMember: pieces += halves(of: members, hasWaited: piece.hasWaited, else: .ledgerDown)
                case .waitedInVain: pieces += withoutLocked(piece, until, session)
                }
            }
        }
    }

    /// What is to be sent next, the last first. A single member is answered instead.
    private func halves(of members: [Member], hasWaited: Bool, else why: Unavailable) -> [Piece] {
        switch Committer<Member>.retry(members) {
        case .fail(let only):
            deliver([(only, .failure(.notRun(why)))])
            return []
        case .halves(let first, let second):
            return [Piece(members: second, hasWaited: hasWaited), Piece(members: first, hasWaited: hasWaited)]
        }
    }

    /// A piece was rolled back because a lock was not to be had: the members of locked products are put out, and the rest is returned.
    private func withoutLocked(_ piece: Piece, _ until: ContinuousClock.Instant, _ session: PostgresSession) -> [Piece] {
        let products = Set(piece.members.map { product($0.request).rawValue })
        var found: Set<Int64> = []
        do throws(PostgresError) {
            found = try locked.locked(among: products.sorted(), session)
        } catch  where error.isLockTimeout {
            // The whole table is locked.
        } catch {
            deliver(piece.members.map { ($0, .failure(.notRun(.ledgerDown))) })
            return []
        }
        guard found.isEmpty else {
            locked.found(found)
            var rest: [Member] = []
            var out: [Member] = []
            for member in piece.members {
                if found.contains(product(member.request).rawValue) { out.append(member) } else { rest.append(member) }
            }
            let count = UInt64(out.count)
            state.withLock { $0.figures.putOut += count }
            for member in out { waitForRow(member) }
            return rest.isEmpty ? [] : [Piece(members: rest, hasWaited: piece.hasWaited)]
        }
        // The row has become free since, or the lock is another: a table's, or that of a key that somebody else is writing.
        guard ContinuousClock.now < until else {
            deliver(piece.members.map { ($0, .failure(.notRun(.lockTimeout))) })
            return []
        }
        if piece.hasWaited { return halves(of: piece.members, hasWaited: true, else: .lockTimeout) }
        return [Piece(members: piece.members, hasWaited: true)]
    }

    /// A member whose product's row is locked: it waits apart from the lane, and comes back when the row is free.
    private func waitForRow(_ member: Member) {
        var member = member
        let now = ContinuousClock.now
        let until = member.waitsUntil ?? now + patience
        member.waitsUntil = until
        let waiting = member
        let grace: Duration? = member.isPatient ? nil : Self.grace
        let admission = locked.wait(for: product(member.request).rawValue, until: until, grace: grace) { ending in
            switch ending {
            case .free: self.enqueue(waiting, isExempt: true)
            case .timedOut: self.deliver([(waiting, .failure(.notRun(.lockTimeout)))])
            case .shutDown: self.deliver([(waiting, .failure(.notRun(.ledgerDown)))])
            }
        }
        switch admission {
        case .waiting: break
        case .notLocked where now < until: enqueue(waiting, isExempt: true)
        case .notLocked, .refused, .tooLate: deliver([(waiting, .failure(.notRun(.lockTimeout)))])
        }
    }

    private enum Verdict {
        case again
        case whole(CommitFailure)
        case badMember
        case waitedInVain
    }

    /// What an error means for the members of the batch that met it.
    private static func verdict(on error: PostgresError) -> Verdict {
        // A reply that cannot be read may be that of a statement that committed.
        if error.isOutcomeUnknown || error.code == .decoding { return .whole(.unknown) }
        guard let sqlState = error.sqlState else { return .whole(.notRun(.ledgerDown)) }
        switch sqlState {
        case "55P03": return .waitedInVain
        case "57014": return .whole(.notRun(.lockTimeout))
        case "40P01", "40001": return .again
        default: break
        }
        switch sqlState.prefix(2) {
        // The server goes away, or is broken: whether the transaction had ended by then is not said.
        case "57", "58", "XX", "08": return .whole(.unknown)
        case "53", "25", "28", "3D", "42": return .whole(.notRun(.ledgerDown))
        default: return .badMember
        }
    }

    private func note(batch: Int, since began: ContinuousClock.Instant, failed error: PostgresError? = nil) {
        let seconds = (ContinuousClock.now - began) / .seconds(1)
        state.withLock { state in
            state.figures.batches += 1
            state.figures.members += UInt64(batch)
            state.figures.largestBatch = max(state.figures.largestBatch, batch)
            state.figures.seconds += seconds
            if let error { if error.isOutcomeUnknown { state.figures.unknown += 1 } else { state.figures.rolledBack += 1 } }
        }
    }

    /// Answers on each member's own loop, with one hop a loop and batch.
    private func deliver(_ results: [(Member, Result<Reply, CommitFailure>)]) {
        var rest = results[...]
        var groups: [(loop: any EventLoop, results: [(Member, Result<Reply, CommitFailure>)])] = []
        while let (member, result) = rest.popFirst() {
            guard let loop = member.eventLoop else {
                member.answer(result)
                continue
            }
            if let index = groups.firstIndex(where: { $0.loop === loop }) {
                groups[index].results.append((member, result))
            } else {
                groups.append((loop, [(member, result)]))
            }
        }
        for group in groups {
            group.loop.execute { for (member, result) in group.results { member.answer(result) } }
        }
    }
}
