// Ends the waits that sessions have left behind at a server. A commit waits for its synchronous standby inside the server, for as long as it takes: no setting of
// the server bounds that, and the server does not notice meanwhile that its client is gone. So while the standby is away, each commit whose client gives up would
// leave a server process waiting, with its place for a connection and its locked rows.
//
// Invariant: only a wait for the standby is ended, of a process that a session of this program has given up. The transaction is committed at the server then, and
//   perhaps nowhere else. Nobody is told: to the caller its outcome is unknown, and stays unknown.
//
// Who suffers: nobody. Sessions hand a process over and go on.
// Bounds: one thread for each host of an address, made when a session is given up there for the first time, and one connection of it while it works; `capacity`
//   processes wait, and are asked about up to `rounds` times, for about four seconds. What is not ended by then, or finds no room, is counted and left alone.
// Stop: with the last configuration of the address.

import BlockingThreads
import Synchronization

/// The server processes of one host that wait for nobody, and the thread that ends their waits.
final class AbandonedWaits: Sendable {
    /// What became of the waits.
    struct Counts: Hashable, Sendable {
        /// Waits that the server was asked to end, and processes that had ended by themselves.
        var ended = 0
        /// Processes that were left alone: there was no room for them, the server could not be asked, or they did something else for too long.
        var dropped = 0
    }

    static let capacity = 256
    static let rounds = 5
    /// The pause after the first round, which doubles with each further one: a process that still runs its statement is asked about again.
    static let pause: Duration = .milliseconds(250)

    private let group: GroupCommit<Int64>
    private let state: Tally

    private final class Tally: Sendable {
        let counts = Mutex(Counts())
        func ended(_ number: Int) { counts.withLock { $0.ended += number } }
        func dropped(_ number: Int) { counts.withLock { $0.dropped += number } }
    }

    /// - Parameter configuration: leads to the one host
    init(_ configuration: PostgresConfiguration) throws(PostgresError) {
        var configuration = configuration
        configuration.applicationName += "-ending"
        configuration.callTimeout = .seconds(1)
        configuration.connectTimeout = .seconds(1)
        configuration.statementTimeout = .milliseconds(800)
        configuration.endsAbandonedWaits = false
        let state = Tally()
        self.state = state
        group = GroupCommit(
            worker: try PostgresWorker(configuration: configuration, name: "pg-ending"),
            capacity: Self.capacity,
            maximumBatch: Self.capacity
        ) { _, session, processes in
            Self.end(Array(processes), session, state)
            // The place for a connection may be needed more elsewhere.
            session.close()
        } fail: { processes, _ in
            state.dropped(processes.count)
        }
    }

    var counts: Counts { state.counts.withLock { $0 } }

    /// A session has given this process up, while the outcome of what it was sent is unknown.
    func add(_ process: Int64) { group.add(process) }

    // MARK: On the thread

    private static func end(_ processes: [Int64], _ session: PostgresSession, _ state: Tally) {
        // A process that is named twice counts once.
        var left = Set(processes)
        for round in 0..<rounds {
            let before = left.count
            do throws(PostgresError) {
                left = try cancel(left, session)
            } catch {
                return state.dropped(left.count)
            }
            state.ended(before - left.count)
            if left.isEmpty { return }
            // No question follows the last round, so there is nothing to wait for.
            guard round + 1 < rounds else { break }
            _ = WakeSignal().wait(for: pause * (1 << round))
        }
        state.dropped(left.count)
    }

    /// Ends the waits of those processes that wait for the standby.
    /// - Returns: those that still do something else
    private static func cancel(_ processes: Set<Int64>, _ session: PostgresSession) throws(PostgresError) -> Set<Int64> {
        // A process may have ended, and the system may have given its number to another one. Ending that one's wait is harmless: the outcome is then unknown to
        // its session, which sends the statement again.
        let sql = """
            select pid::bigint, case when wait_event = 'SyncRep' then pg_cancel_backend(pid) else false end from pg_stat_activity
            where pid = any($1::bigint[]) and usename = current_user and backend_type = 'client backend'
            """
        var left: Set<Int64> = []
        for row in try session.query(sql, [.ints(processes.sorted())]) {
            if try !row.decode(1, as: Bool.self) { left.insert(try row.decode(0)) }
        }
        return left
    }
}
