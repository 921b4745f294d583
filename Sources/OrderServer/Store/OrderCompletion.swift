// Invariant: a status changes only along PENDING -> CONFIRMED | FAILED and CONFIRMED -> CANCELLED. The statement's own condition ensures that, whoever else
//   settles the order at the same time. An order is answered in a final state only after that state is durable. The same statement writes the events about it.
//
// Who suffers: the orders of one group wait for their rows together, but only briefly (`GroupWrite.rowWait`). An order whose row another transaction has locked
//   waits apart (`LockedRows`), for `patience` at most, and comes back when the row is free. The others are written without it.
//
// Bounds: those of the writer, and of `LockedRows`.

import PostgresClient
import ServerMetrics
import StockContract
import StrictJSON
import Synchronization

/// The outcome of writing a final state.
enum CompletionOutcome: Sendable {
    /// The state is durable since this time.
    case written(at: Timestamp)
    /// The order was not in the state or run from which the change starts, because somebody else has settled it.
    case overtaken
    /// Too many changes wait already.
    case overloaded
    /// PostgreSQL refused the change, or its outcome is unknown.
    case unavailable(PostgresError)
}

/// A change of an order's state.
struct OrderChange: Sendable {
    var id: Int64
    var run: Int64
    var from: OrderStatus
    var to: OrderStatus
    var failReason: String?
    /// JSON of the records that are appended to the order's history.
    var steps: String
    /// The order as it was before, for its event; nil: the statement finds out what the event says.
    var order: Order?
}

/// Writes orders' final states in groups.
final class OrderCompletion: OrderGroup {
    struct Item: RowMember {
        var change: OrderChange
        /// When the change stops waiting for its row; nil until it is put out of a group for the first time.
        var waitsUntil: ContinuousClock.Instant?
        /// Called once, on the writer's thread or that of `LockedRows`.
        var done: @Sendable (CompletionOutcome) -> Void

        var row: Int64 { change.id }
        var grace: Duration? { nil }
    }

    /// How long one order waits for its row at most.
    static let patience = Duration.seconds(2)

    let group: GroupCommit<Item>

    init(
        configuration: PostgresConfiguration,
        maximumQueued: Int,
        maximumBatch: Int,
        batches: Histogram,
        locked: LockedRows,
        outbox: OutboxWriting? = nil,
        pace: GroupCommit<Item>.Pace? = nil,
        turns: GroupTurns? = nil,
        changed: OrderWatch? = nil,
        onTrouble: OrderWriterTrouble? = nil
    ) throws(PostgresError) {
        let ids = Mutex(IDSequence.messages.block)
        self.group = GroupCommit(
            worker: try PostgresWorker(orders: "order-complete", configuration, onTrouble),
            capacity: maximumQueued,
            maximumBatch: maximumBatch,
            pace: pace,
            turns: turns,
            rowWaits: .init(rows: locked, patience: OrderCompletion.patience, comesBackExempt: false)
        ) { group, session, items in
            batches.record(UInt64(items.count))
            ids.withLock { OrderCompletion.commit(session, items, &$0, group, outbox, changed) }
        } fail: { items, why in
            for item in items { item.done(why == .full ? .overloaded : .unavailable(why.error)) }
        }
    }

    /// Changes an order's state. `done` is called on the writer's thread when that is durable, or at once if too many changes wait.
    func complete(
        _ order: Order,
        from: OrderStatus,
        to: OrderStatus,
        failReason: String?,
        records: [StepRecord],
        done: @escaping @Sendable (CompletionOutcome) -> Void
    ) {
        let item = Item(
            change: OrderChange(
                id: order.id,
                run: order.run,
                from: from,
                to: to,
                failReason: failReason,
                steps: StepRecord.json(records),
                order: order
            ),
            done: done
        )
        group.addOrWait(item)
    }

    /// Changes an order's state, and returns when that is durable.
    func complete(
        _ order: Order,
        from: OrderStatus,
        to: OrderStatus,
        failReason: String?,
        records: [StepRecord]
    ) async -> CompletionOutcome {
        await withCheckedContinuation { continuation in
            self.complete(order, from: from, to: to, failReason: failReason, records: records) { continuation.resume(returning: $0) }
        }
    }

    private static let update = """
          update orders o set status = t.s, fail_reason = t.f, updated_at = now(), version = o.version + 1,
            steps = case when o.steps = '' then t.h else concat_ws(',', o.steps, nullif(t.h, '')) end
          from unnest($1, $2, $3, $4, $5, $6) as t(i, r, w, s, f, h)
          where o.id = t.i and o.run = t.r and o.status = t.w
        """

    static let completeSQL = """
        with done as (
        \(update)
          returning o.id, o.status
        )
        select now(), coalesce(array_agg(id), '{}'), coalesce(array_agg(status), '{}') from done
        """

    /// For changes whose orders are known, so that the drafts of their events can be written.
    private static let completeWithDraftsSQL = """
        with done as (
        \(update)
          returning o.id, o.status, o.version
        ), events as (
          \(OutboxSQL.drafts(rows: "done", first: 7, hasVersions: true))
        )
        select now(), coalesce(array_agg(id), '{}'), coalesce(array_agg(status), '{}'), (select count(*) from events),
          case when $11 then pg_notify('\(OutboxChannel.name)', '')::text end
        from done
        """

    private static let completeWithEventsSQL = """
        with \(OutboxSQL.clock), done as (
        \(update)
          returning o.id, o.product_id, o.product_code, o.buyer_id, o.quantity, o.unit_price, o.status, o.fail_reason, o.run, o.version, o.created_at
        ), events as (
          \(OutboxSQL.events(rows: "done", first: 7, created: OutboxSQL.createdBefore))
        )
        select now(), coalesce(array_agg(id), '{}'), coalesce(array_agg(status), '{}'), (select count(*) from events),
          case when $9 then pg_notify('\(OutboxChannel.name)', '')::text end
        from done
        """

    private static func commit(
        _ session: PostgresSession,
        _ items: ArraySlice<Item>,
        _ ids: inout IDBlock,
        _ group: GroupCommit<Item>,
        _ outbox: OutboxWriting?,
        _ changed: OrderWatch?
    ) {
        GroupWrite.run(items, patience: self.patience) { (part) throws(PostgresError) in
            let (now, status) = try self.write(session, part.map(\.change), &ids, outbox, changed)
            if !status.isEmpty { session.worked() }
            // The buyers are answered while PostgreSQL works on the next group, if there is one.
            session.postpone {
                for item in part {
                    item.done(status[item.change.id] == item.change.to.rawValue ? .written(at: now) : .overtaken)
                }
            }
        } putOut: { part in
            // It is unknown which rows are locked, so the part is treated as if it had met an unknown lock.
            (try? group.putOut(of: part, session)) ?? nil
        } fail: { part, error in
            session.workFailed(error)
            for item in part { item.done(.unavailable(error)) }
        }
    }

    /// Writes changes in one statement, and informs those that wait for one of the orders.
    /// - Returns: the time, and the states of the orders that were changed
    static func write(
        _ session: PostgresSession,
        _ changes: [OrderChange],
        _ ids: inout IDBlock,
        _ outbox: OutboxWriting?,
        _ changed: OrderWatch?,
        mayStartAnew: Bool = true
    ) throws(PostgresError) -> (at: Timestamp, status: [Int64: String]) {
        // Rows are locked in the order of their ids, so that two servers that settle the same orders seldom deadlock. If one order occurs twice in a statement,
        // one change is written. The status that the order has then tells which one.
        let changes = changes.sorted { $0.id < $1.id }
        var parameters: [PostgresValue] = [
            .ints(changes.map(\.id)),
            .ints(changes.map(\.run)),
            .texts(changes.map(\.from.rawValue)),
            .texts(changes.map(\.to.rawValue)),
            .optionalTexts(changes.map(\.failReason)),
            .texts(changes.map(\.steps)),
        ]
        var sql = completeSQL
        var room = 0
        if let outbox {
            let events = try outbox.eventRows(Set(changes.map(\.to)), orders: changes.count, session, &ids)
            room = events.ids.count
            if room > 0, let drafts = self.drafts(changes, events.ids, events.statuses) {
                parameters += drafts.parameters + [.bool(outbox.mustNotify())]
                sql = completeWithDraftsSQL
            } else if room > 0 {
                parameters += [.ints(events.ids), .texts(events.statuses), .bool(outbox.mustNotify())]
                sql = completeWithEventsSQL
            }
        }
        // Repeating the statement is safe: the order is no longer in the state from which the change starts. The answer is "overtaken" then, and the caller
        // finds the order in the state that it wanted.
        let row: PostgresRow
        do throws(PostgresError) {
            row = try session.repeatable(sql, parameters).one()
        } catch {
            outbox?.wroteNone(room: room)
            guard room > 0, mayStartAnew, IDSequence.messages.isCause(of: error) else { throw error }
            _ = try ids.startAnew(session)
            return try self.write(session, changes, &ids, outbox, changed, mayStartAnew: false)
        }
        if let outbox, room > 0 { outbox.wrote(commands: 0, events: try row.decode(3), room: room) }
        var status: [Int64: String] = [:]
        for (id, text) in zip(try row.decode(1, as: [Int64].self), try row.decode(2, as: [String?].self)) { status[id] = text }
        changed?.changed(Array(status.keys))
        return (Timestamp(try row.decode(0)), status)
    }

    /// The drafts of the changes' events; nil if an order is not known, or occurs twice, so that the statement alone knows which change is written.
    private static func drafts(_ changes: [OrderChange], _ ids: [Int64], _ statuses: [String]) -> DraftRows? {
        // The changes are sorted by their orders.
        guard zip(changes, changes.dropFirst()).allSatisfy({ $0.id < $1.id }) else { return nil }
        var rows = DraftRows(ids: ids, statuses: statuses)
        for status in statuses {
            var json = JSONWriter(capacity: 96 * changes.count)
            for change in changes where change.to.rawValue == status {
                guard let order = change.order else { return nil }
                EventDraft.add(order, failReason: change.failReason, to: &json)
            }
            rows.drafts.append(json.string)
        }
        return rows
    }
}
