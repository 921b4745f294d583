// What a plain read has shown may be lost again: a commit can be seen at the primary although its synchronous standby lacks it, because the wait for the standby
// was cancelled, or because the primary crashed and recovered meanwhile. A reader that tells somebody else what it has read waits here until that cannot be lost.
//
// Invariant: a reader goes on only after a transaction has been committed at the server that it read from, which began after the read. The standby has then
//   everything that the read can have shown, because it has all of the log up to that commit.
//
// Who suffers: all readers that come while one wait is under way share the next one, and fail with it. They hold no connection of their pool meanwhile.
// Bounds: `capacity` readers; one connection and thread, made when a server has a synchronous standby for the first time; `bound` for one wait. A wait that is
//   over is cancelled at the server, where it would hold a place for a connection until the standby comes back. It is the wait of an empty transaction: nobody is
//   told anything by it.
// Stop: after `shutdown` every reader fails.

import Synchronization

extension PostgresSession {
    /// SQL for the server that a statement reads from, where it has a synchronous standby; null where it has none. It reads no table.
    public static let replicatedServer =
        "case when current_setting('synchronous_standby_names') <> '' then (extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint end"

    /// Commits an empty transaction, and returns when the synchronous standby has all of the log up to it, if there is such a standby.
    ///
    /// - Throws: also `notReplicated`
    /// - Returns: the server, as ``replicatedServer`` names it
    func commitEmpty(timeout: Duration) throws(PostgresError) -> Int64 {
        // Only a transaction that has written to the log waits for the standby. So this one writes a message, which every role may write and nobody reads. It has a
        // name of its own, by which its wait can be found and cancelled.
        let sql = """
            select pg_logical_emit_message(true, 'stockgate'::text, ''::text)::text, (extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint,
                set_config('application_name', $1, true)
            """
        return try query(sql, [.text(ReplicationBarrier.transactionName)], timeout: timeout).one().decode(1)
    }

    /// Returns when what this session has seen until now cannot be lost by a failover to a synchronous standby. Where there is none, it returns after one round trip.
    ///
    /// - Throws: also `notReplicated`, and `connectionLost` if the session was opened anew meanwhile, so that it may see another server
    public func awaitReplication(timeout: Duration? = nil) throws(PostgresError) {
        let opened = connectionsOpened
        _ = try query(
            "select case when current_setting('synchronous_standby_names') <> '' then pg_logical_emit_message(true, 'stockgate'::text, ''::text)::text end",
            [],
            timeout: timeout
        )
        guard connectionsOpened == opened else {
            throw PostgresError(code: .connectionLost(outcomeUnknown: false), message: "the session was opened anew since it has read")
        }
    }
}

/// Where readers wait until what they have read is at the synchronous standby.
final class ReplicationBarrier: Sendable {
    private struct Reader: Sendable {
        var server: Int64
        var done: CheckedContinuation<PostgresError?, Never>
    }

    /// Readers that wait at most.
    static let capacity = 4096
    /// The `application_name` of an empty transaction.
    static let transactionName = "stockgate-barrier"
    private let group: GroupCommit<Reader>

    /// - Parameter bound: how long one wait takes at most
    init(configuration: PostgresConfiguration, bound: Duration) throws(PostgresError) {
        var configuration = configuration
        configuration.applicationName += "-barrier"
        var ending = configuration
        ending.callTimeout = .seconds(1)
        ending.connectTimeout = .seconds(1)
        let canceller = ending
        group = GroupCommit(
            worker: try PostgresWorker(configuration: configuration, name: "pg-barrier"),
            capacity: Self.capacity,
            maximumBatch: Self.capacity
        ) { _, session, readers in
            do throws(PostgresError) {
                let server = try session.commitEmpty(timeout: bound)
                let moved = PostgresError(
                    code: .connectionLost(outcomeUnknown: false),
                    message: "another server was read than the one that answers now"
                )
                for reader in readers { reader.done.resume(returning: reader.server == server ? nil : moved) }
            } catch {
                for reader in readers { reader.done.resume(returning: error) }
                // Without a pooler the session itself has this done.
                if session.isPooled, case .timedOut = error.code { Self.cancel(canceller) }
            }
        } fail: { readers, why in
            for reader in readers { reader.done.resume(returning: why.error) }
        }
    }

    /// Returns when the standby has what was read at this server.
    /// - Parameter server: as ``PostgresSession/replicatedServer`` named it
    func wait(at server: Int64) async throws(PostgresError) {
        let error = await withCheckedContinuation { done in
            _ = group.add(Reader(server: server, done: done))
        }
        if let error { throw error }
    }

    func shutdown() async { await group.shutdown() }

    /// Ends the waits of empty transactions. Behind a pooler it is unknown which process of the server runs the one that was given up.
    private static func cancel(_ configuration: PostgresConfiguration) {
        let session = PostgresSession(configuration: configuration)
        defer { session.close() }
        let sql = """
            select pg_cancel_backend(pid) from pg_stat_activity
            where application_name = $1 and wait_event = 'SyncRep' and usename = current_user
            """
        _ = try? session.query(sql, [.text(transactionName)])
    }
}
