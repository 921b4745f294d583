// Invariant: every accepted item is completed exactly once, by the job that took it.
//
// Bounds: `maximumQueued` items wait, one more is refused; `maximumBatch` items go into one statement. One item alone goes at once: no timer
// delays it. Where the writer gathers, the few that came while a group was written wait for more, for a bounded time. Each batch is sent at most `attempts` times, and again only in a form that may be repeated.

import BlockingThreads
import PostgresClient
import Synchronization

/// Gathers writes while one is at PostgreSQL and sends what has gathered in one statement, on a connection and thread of its own.
final class GroupWriter<Item: Sendable>: Sendable {
    /// Waiting a little for more items after a group, where a group costs the rest of its way more than the items in it do.
    struct Gathering: Sendable {
        /// So many items go at once.
        var enough: Int
        /// The longest wait.
        var time: Duration
        /// Whether what follows this group is worth waiting for.
        var follows: @Sendable (ArraySlice<Item>) -> Bool
    }

    private struct State {
        var waiting: [Item] = []
        var isDraining = false
        var isGathering = false
    }

    private let state = Mutex(State())
    private let worker: PostgresWorker
    private let maximumQueued: Int
    private let maximumBatch: Int
    private let gathering: Gathering?
    private let enough = WakeSignal()
    private let commit: @Sendable (PostgresSession, ArraySlice<Item>) -> Void

    /// Makes a writer over its own thread; connects at the first batch.
    /// - Parameters:
    ///   - gathering: nil: what has come while a group was written goes when it is written, however little it is
    ///   - commit: writes a batch and completes each of its items, which it may postpone in the session
    init(
        configuration: PostgresConfiguration,
        name: String,
        maximumQueued: Int,
        maximumBatch: Int,
        gathering: Gathering? = nil,
        onTrouble: (@Sendable (_ writer: String, _ trouble: PostgresError?, _ isNews: Bool) -> Void)? = nil,
        commit: @escaping @Sendable (PostgresSession, ArraySlice<Item>) -> Void
    ) throws(PostgresError) {
        self.worker = try PostgresWorker(configuration: configuration, name: name, maximumQueued: 16) { trouble, isNews in
            onTrouble?(name, trouble, isNews)
        }
        self.maximumQueued = maximumQueued
        self.maximumBatch = maximumBatch
        self.gathering = gathering
        self.commit = commit
    }

    /// Items that wait.
    var queued: Int { self.state.withLock { $0.waiting.count } }

    /// Takes the writer's place at the server; trouble is told by `onTrouble`, and the next batch connects.
    func connect() async { try? await self.worker.connect() }

    /// What keeps this very writer from writing, nil if nothing does.
    func troubleWriting() async -> PostgresError? { await self.worker.troubleWriting() }

    /// Adds an item; false if too many wait already or the writer was shut down.
    func add(_ item: Item) -> Bool {
        let (isAccepted, mustWake, isEnough) = self.state.withLock { state -> (Bool, Bool, Bool) in
            guard state.waiting.count < self.maximumQueued else { return (false, false, false) }
            state.waiting.append(item)
            defer { state.isDraining = true }
            return (true, !state.isDraining, state.isGathering && state.waiting.count >= self.gathering?.enough ?? 0)
        }
        if isEnough { self.enough.signal() }
        guard mustWake else { return isAccepted }
        do throws(PostgresError) {
            try self.worker.submit { [self] session in self.drain(session) }
        } catch {
            // Shut down: whatever has gathered since has nobody to write it.
            let abandoned = self.state.withLock { state in
                defer {
                    state.waiting = []
                    state.isDraining = false
                }
                return state.waiting
            }
            self.abandon(abandoned[...])
        }
        return isAccepted
    }

    /// Lets what waits be written, then ends the thread.
    func shutdown() async { await self.worker.shutdown() }

    private func abandon(_ items: ArraySlice<Item>) {
        guard !items.isEmpty else { return }
        // A session that cannot connect: the batch is completed by the same code, with the failure that it gets.
        guard let configuration = try? PostgresConfiguration(url: "postgresql://127.0.0.1:1/closed") else { return }
        let session = PostgresSession(configuration: configuration)
        self.commit(session, items)
        session.doPostponed()
    }

    private func drain(_ session: PostgresSession) {
        // Ends when nothing waits; whoever adds the next item wakes it again.
        while true {
            let taken = self.state.withLock { state -> [Item] in
                if state.waiting.isEmpty { state.isDraining = false }
                defer { state.waiting.removeAll(keepingCapacity: false) }
                return state.waiting
            }
            if taken.isEmpty { return }
            var rest = taken[...]
            while !rest.isEmpty {
                self.commit(session, rest.prefix(self.maximumBatch))
                rest = rest.dropFirst(self.maximumBatch)
            }
            if let gathering = self.gathering, gathering.follows(taken[...]) { self.gather(gathering, session) }
        }
    }

    /// Waits until enough have come or the time is over, where some have come, but few.
    private func gather(_ gathering: Gathering, _ session: PostgresSession) {
        let isFew = self.state.withLock { state in
            state.isGathering = !state.waiting.isEmpty && state.waiting.count < gathering.enough
            return state.isGathering
        }
        guard isFew else { return }
        // Those of the last group are answered first.
        session.doPostponed()
        _ = self.enough.wait(for: gathering.time)
        self.state.withLock { $0.isGathering = false }
    }
}

extension PostgresSession {
    /// Runs a statement that may be repeated, again while PostgreSQL is in passing trouble: at most 3 times within `bound`. One that waited for a lock in vain is the caller's to
    /// repeat: others wait behind it.
    func repeatable(
        _ sql: String,
        _ parameters: [PostgresValue],
        within bound: Duration = .seconds(2)
    ) throws(PostgresError) -> PostgresResult {
        let deadline = ContinuousClock.now + bound
        for _ in 1..<3 {
            do throws(PostgresError) {
                return try self.query(sql, parameters)
            } catch  where error.isTransient && ContinuousClock.now < deadline && error.code != .connectFailed && !error.isLockTimeout {
                continue
            }
        }
        return try self.query(sql, parameters)
    }
}
