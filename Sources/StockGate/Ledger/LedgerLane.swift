// One lane of group commit: a queue, a thread, a connection.
//
// Invariant: every member is answered exactly once: with a decision, or with `unknown`, or with `notRun`.
// Bounds: the committer's; a batch that deadlocked is tried `maximumDeadlockRetries` times; one that failed for a bad member is tried member by
//   member, once.
// Stop: after `shutDown`, waiting members are answered `notRun`.

import NIOCore
import PostgresClient
import Synchronization

/// A request in a lane, and where its answer goes.
struct LaneMember<Request: Sendable, Reply: Sendable>: Sendable {
    let request: Request
    /// The loop that `answer` is called on; nil: the lane's own thread.
    let eventLoop: (any EventLoop)?
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

    private let state: Mutex<State>
    private let worker: PostgresWorker
    /// Sends one batch as one statement and returns a reply for each member, in order.
    private let send: @Sendable (PostgresSession, [Request]) throws(PostgresError) -> [Reply]

    init(
        worker: PostgresWorker,
        capacity: Int,
        maximumBatch: Int,
        key: @escaping @Sendable (Request) -> String,
        send: @escaping @Sendable (PostgresSession, [Request]) throws(PostgresError) -> [Reply]
    ) {
        self.worker = worker
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

    private func execute(_ batch: [Member], _ session: PostgresSession) {
        for attempt in 0...Self.maximumDeadlockRetries {
            let began = ContinuousClock.now
            do {
                let replies = try send(session, batch.map(\.request))
                note(batch: batch.count, since: began)
                guard replies.count == batch.count else {
                    // The statement committed and its answer makes no sense: unknown, to be settled by sending it again.
                    return deliver(batch.map { ($0, .failure(.unknown)) })
                }
                return deliver(zip(batch, replies).map { ($0, .success($1)) })
            } catch {
                note(batch: batch.count, since: began, failed: error)
                switch Self.verdict(on: error) {
                case .again where attempt < Self.maximumDeadlockRetries: continue
                case .again: return deliver(batch.map { ($0, .failure(.notRun(.lockTimeout))) })
                case .whole(let failure): return deliver(batch.map { ($0, .failure(failure)) })
                case .badMember:
                    switch Committer<Member>.retry(batch) {
                    case .fail(let only): return deliver([(only, .failure(.notRun(.ledgerDown)))])
                    case .singly(let members):
                        for member in members { execute([member], session) }
                        return
                    }
                }
            }
        }
    }

    private enum Verdict {
        case again
        case whole(CommitFailure)
        case badMember
    }

    /// What an error means for the members of the batch that met it.
    private static func verdict(on error: PostgresError) -> Verdict {
        // A reply that cannot be read may be that of a statement that committed.
        if error.isOutcomeUnknown || error.code == .decoding { return .whole(.unknown) }
        guard let sqlState = error.sqlState else { return .whole(.notRun(.ledgerDown)) }
        switch sqlState {
        case "55P03", "57014": return .whole(.notRun(.lockTimeout))
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
