import PostgresClient
import ServerMetrics
import StockContract

/// The rows of events that a statement writes with its orders, one for each status. Empty: none are written.
struct DraftRows {
    var ids: [Int64] = []
    var statuses: [String] = []
    var drafts: [String] = []

    /// The parameters of ``OutboxSQL/drafts(rows:first:hasVersions:)``.
    var parameters: [PostgresValue] {
        [
            .ints(ids), .texts(statuses),
            .texts(statuses.map { OrderStatus(rawValue: $0).map { OutboxSQL.kind(of: $0).rawValue } ?? "" }), .texts(drafts),
        ]
    }
}

/// What statements that write orders need to write messages with them. It exists only if there is a broker.
struct OutboxWriting: Sendable {
    let backlog: OutboxBacklog
    /// Events that were not written because too many wait.
    let droppedEvents: Counter
    /// Wakes this server's relay of commands.
    let wakeCommands: @Sendable () -> Void
    /// Wakes this server's relay of events.
    let wakeEvents: @Sendable () -> Void
    /// Whether other servers' relays must be notified, because this server's relay cannot publish commands now. Events wait for the other relays' next look
    /// instead.
    ///
    /// Notifying always would be slow: PostgreSQL lets transactions with a NOTIFY commit only one by one, each with its own flush (`PreCommit_Notify`,
    /// async.c).
    let mustNotify: @Sendable () -> Bool

    /// Ids for the event rows of a statement that may write events of these statuses. There are fewer ids, or none, when too many events wait.
    func eventRows(
        _ statuses: Set<OrderStatus>,
        orders: Int,
        _ session: PostgresSession,
        _ ids: inout IDBlock
    ) throws(PostgresError) -> (ids: [Int64], statuses: [String]) {
        guard backlog.reserve(events: statuses.count) else {
            droppedEvents.add(UInt64(orders))
            return ([], [])
        }
        let statuses = statuses.map(\.rawValue).sorted()
        do throws(PostgresError) {
            return (try ids.take(statuses.count, session), statuses)
        } catch {
            wroteNone(room: statuses.count)
            throw error
        }
    }

    /// A statement that should write event rows has failed. If it wrote them anyway, the next count finds them.
    /// - Parameter room: how many rows had room reserved
    func wroteNone(room: Int) {
        if room > 0 { backlog.release(events: room) }
    }

    /// A statement that wrote this many rows is durable.
    func wrote(commands: Int, events: Int, room: Int) {
        wroteNone(room: room - events)
        if commands > 0 { wakeCommands() }
        if events > 0 { wakeEvents() }
    }

    /// Wakes both relays, because a statement may have written rows of both kinds.
    func wake() {
        wakeCommands()
        wakeEvents()
    }
}
