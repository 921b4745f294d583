// Invariant: every connection that is lent is given back exactly once. Every waiting caller is resumed exactly once, by the code that takes its continuation
//   out of the table under the lock.
//
// A connection that was unused for `idleTimeout` is closed, so that its place at the server is free for a session that works.
//
// Bounds: `maximumConnections` threads and connections. `maximumWaiting` callers wait, each at most for `acquireTimeout`; one more is refused at once.

import Synchronization

/// A bounded number of connections for any number of callers. Each is opened when it is first needed.
public final class PostgresPool: Sendable {
    /// Figures for metrics.
    public struct Snapshot: Sendable, Hashable {
        /// Connections that exist, idle and busy. Each has a thread; its session at the server is opened by its first call.
        public var open: Int
        /// Connections lent to a caller.
        public var busy: Int
        /// Callers that wait for one.
        public var waiting: Int
        /// Callers that were refused because too many waited, since the start.
        public var rejected: Int
        /// Callers that waited longer than the bound, since the start.
        public var expired: Int
    }

    private typealias Outcome = Result<PostgresConnection, PostgresError>

    private struct State {
        var machine: PoolStateMachine<PostgresConnection>
        var continuations: [UInt64: CheckedContinuation<Outcome, Never>] = [:]
        var lastID: UInt64 = 0
        var isSweepDue = false
        /// Made when a reader needs it for the first time.
        var barrier: ReplicationBarrier?
        var isShutDown = false
    }

    private let state: Mutex<State>
    private let configuration: PostgresConfiguration
    private let acquireTimeout: Duration
    private let idleTimeout: Duration

    /// Makes a pool. No connection is opened yet.
    ///
    /// - Parameters:
    ///   - maximumConnections: connections at most.
    ///   - maximumWaiting: callers that may wait when all are busy; 0 refuses at once.
    ///   - acquireTimeout: how long one may wait.
    ///   - idleTimeout: how long an unused connection is kept
    public init(
        configuration: PostgresConfiguration,
        maximumConnections: Int,
        maximumWaiting: Int = 256,
        acquireTimeout: Duration = .seconds(2),
        idleTimeout: Duration = .seconds(30)
    ) {
        self.configuration = configuration
        self.acquireTimeout = acquireTimeout
        self.idleTimeout = idleTimeout
        state = Mutex(State(machine: PoolStateMachine(limit: maximumConnections, waitingLimit: maximumWaiting)))
    }

    /// The present figures for metrics.
    public func snapshot() -> Snapshot {
        state.withLock { state in
            let machine = state.machine
            return Snapshot(
                open: machine.idle.count + machine.busy,
                busy: machine.busy,
                waiting: machine.waiting.count,
                rejected: machine.rejected,
                expired: machine.expired
            )
        }
    }

    /// Runs one statement on any connection.
    ///
    /// - Throws: also `poolExhausted`, `shutDown`, `cancelled` (while waiting for a connection).
    public func query(
        _ sql: String,
        _ parameters: [PostgresValue] = [],
        timeout: Duration? = nil
    ) async throws(PostgresError) -> PostgresResult {
        let began = ContinuousClock.now
        let connection = try await acquire()
        defer { giveBack(connection) }
        // The wait for a connection counts as part of the call's time.
        let left = (timeout ?? configuration.callTimeout) - (.now - began)
        return try await connection.query(sql, parameters, timeout: max(left, .milliseconds(100)))
    }

    /// Runs a transaction on any connection, see ``PostgresSession/transaction(timeout:_:)``.
    public func transaction<T: Sendable>(
        timeout: Duration? = nil,
        _ body: @Sendable (PostgresTransaction) throws -> T
    ) async throws -> T {
        let began = ContinuousClock.now
        let connection = try await acquire()
        defer { giveBack(connection) }
        let left = (timeout ?? configuration.callTimeout) - (.now - began)
        return try await connection.transaction(timeout: max(left, .milliseconds(100)), body)
    }

    /// Lends a connection to `body`, which must not keep it after it returns.
    public nonisolated(nonsending) func withConnection<T>(
        _ body: nonisolated(nonsending) (PostgresConnection) async throws -> T
    ) async throws -> T {
        let connection = try await acquire()
        defer { giveBack(connection) }
        return try await body(connection)
    }

    /// Returns when what was read from this pool cannot be lost by a failover to a synchronous standby. Readers that wait at the same time share a wait, over a
    /// connection of its own.
    ///
    /// - Parameter server: what ``PostgresSession/replicatedServer`` was in the row that was read; nil: there is no synchronous standby, and nothing to wait for
    /// - Throws: also `notReplicated` if it is unknown; `connectionLost` if another server answers now than the one that was read
    public func awaitReplication(at server: Int64?) async throws(PostgresError) {
        guard let server else { return }
        try await barrier().wait(at: server)
    }

    private func barrier() throws(PostgresError) -> ReplicationBarrier {
        let made: Result<ReplicationBarrier, PostgresError> = state.withLock { state in
            if let barrier = state.barrier { return .success(barrier) }
            guard !state.isShutDown else { return .failure(PostgresError(code: .shutDown, message: "the pool was shut down")) }
            do throws(PostgresError) {
                let barrier = try ReplicationBarrier(configuration: configuration, bound: min(configuration.callTimeout, .seconds(2)))
                state.barrier = barrier
                return .success(barrier)
            } catch {
                return .failure(error)
            }
        }
        return try made.get()
    }

    /// Closes the connections that are idle now, because another session needs their places at the server.
    public func closeIdle() {
        // This drops the last reference to each connection. The actor's `deinit` closes the connection and ends the thread.
        _ = state.withLock { $0.machine.expireIdle(since: .now) }
    }

    /// Starts the task that closes connections which are idle for too long. It runs only while there are idle ones.
    private func scheduleSweep() {
        let isFirst = state.withLock { state in
            defer { state.isSweepDue = true }
            return !state.isSweepDue
        }
        guard isFirst else { return }
        Task { [weak self, idleTimeout] in
            var wait: Duration? = idleTimeout
            // The loop ends when no connection is idle.
            while let due = wait {
                try? await Task.sleep(for: max(due, .milliseconds(10)))
                wait = self?.sweepDue()
            }
        }
    }

    /// Closes the connections that have been idle for too long.
    /// - Returns: the time until the next one is due; nil if none is idle
    private func sweepDue() -> Duration? {
        let (_, wait) = state.withLock { state in
            let (close, oldest) = state.machine.expireIdle(since: .now - idleTimeout)
            if oldest == nil { state.isSweepDue = false }
            return (close, oldest.map { $0 + idleTimeout - .now })
        }
        return wait
    }

    /// Refuses waiting and later callers, and closes each connection when it comes back.
    public func shutdown() async {
        let (refused, idle, barrier) = state.withLock { state in
            let (refuse, close) = state.machine.shutdown()
            defer {
                state.isShutDown = true
                state.barrier = nil
            }
            return (refuse.compactMap { state.continuations.removeValue(forKey: $0) }, close, state.barrier)
        }
        await barrier?.shutdown()
        for continuation in refused {
            continuation.resume(returning: .failure(PostgresError(code: .shutDown, message: "the pool was shut down")))
        }
        for connection in idle { await connection.close() }
    }

    // MARK: Lending

    private func acquire() async throws(PostgresError) -> PostgresConnection {
        let id = state.withLock { state in
            state.lastID += 1
            return state.lastID
        }
        let outcome: Outcome = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                begin(id, continuation)
                // If the cancellation came before the caller was in the table, its handler found nobody to refuse.
                if Task.isCancelled { refuse(id, .cancelled, "cancelled while waiting for a connection") }
            }
        } onCancel: {
            refuse(id, .cancelled, "cancelled while waiting for a connection")
        }
        return try outcome.get()
    }

    private func begin(_ id: UInt64, _ continuation: CheckedContinuation<Outcome, Never>) {
        let acquisition = state.withLock { state in
            let acquisition = state.machine.acquire(id)
            if case .wait = acquisition { state.continuations[id] = continuation }
            return acquisition
        }
        switch acquisition {
        case .use(let connection):
            continuation.resume(returning: .success(connection))
        case .open:
            do throws(PostgresError) {
                continuation.resume(returning: .success(try PostgresConnection(configuration: configuration)))
            } catch {
                state.withLock { $0.machine.openFailed() }
                continuation.resume(returning: .failure(error))
            }
        case .wait:
            // Bounded by `maximumWaiting`: one timer for each caller that waits or was served within the last `acquireTimeout`. A timer keeps the pool alive
            // only while it fires.
            Task { [weak self, acquireTimeout] in
                try? await Task.sleep(for: acquireTimeout)
                self?.refuse(id, .poolExhausted, "no connection came free within \(acquireTimeout)")
            }
        case .rejectFull:
            continuation.resume(
                returning: .failure(PostgresError(code: .poolExhausted, message: "all connections are busy and too many wait"))
            )
        case .rejectShutDown:
            continuation.resume(returning: .failure(PostgresError(code: .shutDown, message: "the pool was shut down")))
        }
    }

    private func refuse(_ id: UInt64, _ code: PostgresError.Code, _ message: String) {
        let continuation = state.withLock { state -> CheckedContinuation<Outcome, Never>? in
            guard state.machine.leave(id, expired: code == .poolExhausted) else { return nil }
            return state.continuations.removeValue(forKey: id)
        }
        continuation?.resume(returning: .failure(PostgresError(code: code, message: message)))
    }

    private func giveBack(_ connection: PostgresConnection) {
        let (step, next) = state.withLock { state in
            let step = state.machine.giveBack(connection)
            guard case .handOver(_, let id) = step else { return (step, nil as CheckedContinuation<Outcome, Never>?) }
            return (step, state.continuations.removeValue(forKey: id))
        }
        switch step {
        case .handOver(let connection, _): next?.resume(returning: .success(connection))
        case .kept: scheduleSweep()
        // This drops the last reference. The actor's `deinit` closes the connection and ends the thread.
        case .close: break
        }
    }
}
