import PostgresClient
import ServerKit
import ServerMetrics
import StockContract

/// What the statements that write orders need in order to write messages beside them. There is one only with a broker.
struct OutboxWriting: Sendable {
    let backlog: OutboxBacklog
    /// Events that were not written, because too many wait.
    let droppedEvents: Counter
    /// Tells this server's relay of commands that there is something.
    let wakeCommands: @Sendable () -> Void
    /// The same for the relay of events.
    let wakeEvents: @Sendable () -> Void
    /// Whether other servers' relays must be told, because this one's cannot publish commands now. Events that it cannot publish wait for the others' next look.
    ///
    /// Not always: PostgreSQL lets the commits of transactions with a NOTIFY pass one by one, each with its flush (`PreCommit_Notify`, async.c).
    let mustNotify: @Sendable () -> Bool

    /// Ids of the event rows of a statement that may write events of these statuses; fewer when too many wait.
    func eventRows(
        _ statuses: Set<OrderStatus>,
        orders: Int,
        _ session: PostgresSession,
        _ ids: inout IDBlock
    ) throws(PostgresError) -> (ids: [Int64], statuses: [String]) {
        guard self.backlog.takesEvents else {
            self.droppedEvents.add(UInt64(orders))
            return ([], [])
        }
        let statuses = statuses.map(\.rawValue).sorted()
        return (try ids.take(statuses.count, session), statuses)
    }

    /// A statement is durable that wrote so many rows.
    func wrote(commands: Int, events: Int) {
        if events > 0 { self.backlog.addEvents(events) }
        if commands > 0 { self.wakeCommands() }
        if events > 0 { self.wakeEvents() }
    }

    /// A statement may have written rows of both kinds.
    func wake() {
        self.wakeCommands()
        self.wakeEvents()
    }
}
