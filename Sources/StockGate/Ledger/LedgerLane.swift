// One lane of the ledger's group commit: what its requests mean to `GroupCommit`, and where their answers go.
//
// Invariant: every member is answered exactly once: with a decision, with `unknown`, or with `notRun`.
//
// Who suffers: see `GroupCommit`. The lane's session waits for a lock only for `LedgerConfiguration.rowWait`. Then members whose product's row is locked by
//   another transaction are put out of the batch, and the rest goes on together. A patient member that was put out waits apart from the batch. One that is not
//   patient is told *lock timeout* once the row has been locked for longer than `grace`. Members that come while the row is known to be locked are treated in
//   the same way.
//
// Bounds: the committer's. A batch that deadlocked is tried `maximumDeadlockRetries` times. A batch that failed because of a bad member is halved until that
//   member is alone. A batch that waits in vain for a lock that is no product's row is tried once more, then halved, for `patience` altogether.
// Stop: after `shutdown`, waiting members are answered `notRun`.

import NIOCore
import PostgresClient
import Synchronization

/// A request in a lane, and the place where its answer goes.
struct LaneMember<Request: Sendable, Reply: Sendable>: RowMember {
    let request: Request
    /// The product, whose row the statement locks.
    let row: Int64
    /// The loop on which `answer` is called; nil: the lane's own thread.
    let eventLoop: (any EventLoop)?
    /// Whether the member waits for a row that has been locked for a while. Otherwise it is told *lock timeout* at once.
    var isPatient = true
    /// When the member stops waiting for its row; nil until it is put out of a batch for the first time.
    var waitsUntil: ContinuousClock.Instant?
    let answer: @Sendable (Result<Reply, CommitFailure>) -> Void

    /// How long a row may be locked before an impatient member gives up. It is longer than the group commit of another server takes, even on a slow disk.
    var grace: Duration? { isPatient ? nil : .milliseconds(100) }
}

/// What one lane has done, for metrics.
public struct LaneSnapshot: Sendable {
    /// Members that wait now.
    public var waiting = 0
    /// Statements that were sent.
    public var batches: UInt64 = 0
    /// Members that these statements carried.
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

final class LedgerLane<Request: Sendable, Reply: Sendable>: Sendable {
    typealias Member = LaneMember<Request, Reply>
    /// Sends one batch as one statement and returns a reply for each member, in order.
    typealias Send = @Sendable (PostgresSession, [Request]) throws(PostgresError) -> [Reply]

    private static var maximumDeadlockRetries: Int { 5 }

    private let group: GroupCommit<Member>
    private let tally: LaneTally

    /// - Parameters:
    ///   - locked: the products whose rows are known to be locked; all lanes share it
    ///   - patience: how long one member waits for a locked row, and a batch for another lock
    ///   - hasWritten: whether a reply tells of a row that its statement wrote, which shows that the lane can write
    init(
        worker: PostgresWorker,
        capacity: Int,
        maximumBatch: Int,
        locked: LockedRows,
        patience: Duration,
        key: @escaping @Sendable (Request) -> String,
        hasWritten: @escaping @Sendable (Reply) -> Bool,
        send: @escaping Send
    ) {
        let tally = LaneTally()
        self.tally = tally
        self.group = GroupCommit(
            worker: worker,
            capacity: capacity,
            maximumBatch: maximumBatch,
            key: { key($0.request) },
            rowWaits: .init(rows: locked, patience: patience, comesBackExempt: true)
        ) { group, session, batch in
            Self.write(batch, group, session, patience, tally, hasWritten, send)
        } fail: { members, why in
            let failure: CommitFailure =
                switch why {
                case .full: .notRun(.overloaded)
                case .stopped: .notRun(.ledgerDown)
                case .rowLocked: .notRun(.lockTimeout)
                }
            Self.deliver(members) { _ in .failure(failure) }
        }
    }

    func snapshot() -> LaneSnapshot {
        var snapshot = tally.snapshot()
        snapshot.waiting = group.waiting
        snapshot.refused = UInt64(group.refused)
        return snapshot
    }

    /// Queues one request. An exempt request was sent before with an unknown outcome, so it is let in even if the lane is full.
    func enqueue(_ member: Member, isExempt: Bool = false) { group.addOrWait(member, isExempt: isExempt) }

    /// Answers waiting and later members with `ledgerDown`.
    func shutdown() { group.abandon() }

    // MARK: On the lane's thread

    private static func write(
        _ batch: ArraySlice<Member>,
        _ group: GroupCommit<Member>,
        _ session: PostgresSession,
        _ patience: Duration,
        _ tally: LaneTally,
        _ hasWritten: (Reply) -> Bool,
        _ send: Send
    ) {
        GroupWrite.run(batch, patience: patience, repeats: maximumDeadlockRetries, judge: Self.verdict) { (part) throws(PostgresError) in
            let began = ContinuousClock.now
            let replies: [Reply]
            do throws(PostgresError) {
                replies = try send(session, part.map(\.request))
            } catch {
                tally.note(batch: part.count, since: began, failed: error)
                throw error
            }
            tally.note(batch: part.count, since: began)
            if replies.contains(where: hasWritten) { session.worked() }
            guard replies.count == part.count else {
                // The statement committed, but its answer makes no sense. Its outcome is unknown, and is settled by sending it again.
                return deliver(part) { _ in .failure(.unknown) }
            }
            deliver(part) { .success(replies[$0]) }
        } putOut: { part in
            do throws(PostgresError) {
                let rest = try group.putOut(of: part, session)
                if let rest { tally.notePutOut(part.count - rest.count) }
                return rest
            } catch  where error.isLockTimeout {
                // The lock is not on a row: the whole table is locked.
                return nil
            } catch {
                deliver(part) { _ in .failure(.notRun(.ledgerDown)) }
                return []
            }
        } fail: { part, error in
            session.workFailed(error)
            let failure = failure(after: error)
            deliver(part) { _ in .failure(failure) }
        }
    }

    /// What an error means for a batch.
    private static func verdict(on error: PostgresError) -> GroupWrite.Verdict {
        guard !error.isOutcomeUnknown, error.code != .decoding, let sqlState = error.sqlState else { return .fail }
        switch sqlState {
        case "55P03": return .locked
        case "57014": return .fail
        case "40P01", "40001": return .again
        default: return ["57", "58", "XX", "08", "53", "25", "28", "3D", "42"].contains(sqlState.prefix(2)) ? .fail : .halve
        }
    }

    /// What the members of a batch are told when it is not sent again.
    private static func failure(after error: PostgresError) -> CommitFailure {
        // An unreadable reply may be the reply of a statement that committed.
        if error.isOutcomeUnknown || error.code == .decoding { return .unknown }
        switch error.sqlState {
        case "55P03", "57014", "40P01", "40001": return .notRun(.lockTimeout)
        // The server goes away or is broken, without saying whether the transaction had ended.
        case let state? where ["57", "58", "XX", "08"].contains(state.prefix(2)): return .unknown
        default: return .notRun(.ledgerDown)
        }
    }

    /// Answers on each member's own loop, with one hop a loop and batch.
    ///
    /// - Parameter result: of the member at this place, from 0
    private static func deliver(_ members: ArraySlice<Member>, _ result: (Int) -> Result<Reply, CommitFailure>) {
        var groups: [(loop: any EventLoop, results: [(Member, Result<Reply, CommitFailure>)])] = []
        for (place, member) in members.enumerated() {
            let result = result(place)
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

/// The count of one lane's statements.
private final class LaneTally: Sendable {
    private let state = Mutex(LaneSnapshot())

    func snapshot() -> LaneSnapshot { state.withLock { $0 } }

    func note(batch: Int, since began: ContinuousClock.Instant, failed error: PostgresError? = nil) {
        let seconds = (ContinuousClock.now - began) / .seconds(1)
        state.withLock { counts in
            counts.batches += 1
            counts.members += UInt64(batch)
            counts.largestBatch = max(counts.largestBatch, batch)
            counts.seconds += seconds
            if let error { if error.isOutcomeUnknown { counts.unknown += 1 } else { counts.rolledBack += 1 } }
        }
    }

    func notePutOut(_ members: Int) { state.withLock { $0.putOut += UInt64(members) } }
}
