// Invariant: a status changes only along PENDING -> CONFIRMED | FAILED and CONFIRMED -> CANCELLED, by the statement's own condition, whoever else
// settles the order at the same time. An order is answered in a final state only after that state is durable; the events about it are in the same statement.
//
// Bounds: those of the writer.

import PostgresClient
import ServerKit
import Synchronization

/// What became of a final state.
enum CompletionOutcome: Sendable {
    /// It is durable; the order as it is now.
    case written(at: Timestamp)
    /// The order was not in the state or run that the change starts from: somebody else has settled it.
    case overtaken
    /// Too many wait already.
    case overloaded
    /// PostgreSQL did not take it, or nobody knows whether it did.
    case unavailable(PostgresError)
}

/// A change of an order's state.
struct OrderChange: Sendable {
    var id: Int64
    var run: Int64
    var from: OrderStatus
    var to: OrderStatus
    var failReason: String?
    /// JSON of the records to append to the order's history.
    var steps: String
}

/// Writes orders' final states in groups.
final class OrderCompletion: Sendable {
    struct Item: Sendable {
        var change: OrderChange
        /// Called once, on the writer's thread.
        var done: @Sendable (CompletionOutcome) -> Void
    }

    private let writer: GroupWriter<Item>

    init(
        configuration: PostgresConfiguration,
        maximumQueued: Int,
        maximumBatch: Int,
        batches: Histogram,
        outbox: OutboxWriting? = nil,
        changed: OrderChanges? = nil
    ) throws(PostgresError) {
        let ids = Mutex(IDSequence.messages.block)
        self.writer = try GroupWriter(
            configuration: configuration,
            name: "order-complete",
            maximumQueued: maximumQueued,
            maximumBatch: maximumBatch
        ) { session, items in
            batches.record(UInt64(items.count))
            ids.withLock { OrderCompletion.commit(session, items, &$0, outbox, changed) }
        }
    }

    var queued: Int { self.writer.queued }

    /// Moves an order on; `done` is called when that is durable, on the writer's thread, or at once if too many wait.
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
                steps: StepRecord.json(records)
            ),
            done: done
        )
        if !self.writer.add(item) { done(.overloaded) }
    }

    /// Moves an order on and returns when that is durable.
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

    func shutdown() async { await self.writer.shutdown() }

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
        _ outbox: OutboxWriting?,
        _ changed: OrderChanges?
    ) {
        do throws(PostgresError) {
            let (now, status) = try self.write(session, items.map(\.change), &ids, outbox, changed)
            // The buyers are answered while PostgreSQL works on the next group, if there is one.
            session.postpone {
                for item in items {
                    item.done(status[item.change.id] == item.change.to.rawValue ? .written(at: now) : .overtaken)
                }
            }
        } catch {
            if case .server = error.code, !error.isTransient, items.count > 1 {
                for index in items.indices { self.commit(session, items[index...index], &ids, outbox, changed) }
                return
            }
            for item in items { item.done(.unavailable(error)) }
        }
    }

    /// Writes changes in one statement, and tells whoever waits for one of the orders.
    /// - Returns: when, and the states of those orders that were changed
    static func write(
        _ session: PostgresSession,
        _ changes: [OrderChange],
        _ ids: inout IDBlock,
        _ outbox: OutboxWriting?,
        _ changed: OrderChanges?,
        mayStartAnew: Bool = true
    ) throws(PostgresError) -> (at: Timestamp, status: [Int64: String]) {
        // Rows are locked in id order, so that two servers that settle the same orders seldom lock each other out. Of the same order twice in one
        // statement one is written: the status that it has then tells whose change it was.
        let changes = changes.sorted { $0.id < $1.id }
        var parameters: [PostgresValue] = [
            .ints(changes.map(\.id)),
            .ints(changes.map(\.run)),
            .texts(changes.map(\.from.rawValue)),
            .texts(changes.map(\.to.rawValue)),
            .optionalTexts(changes.map(\.failReason)),
            .texts(changes.map(\.steps)),
        ]
        var sql = self.completeSQL
        var hasEvents = false
        if let outbox {
            let events = try outbox.eventRows(Set(changes.map(\.to)), orders: changes.count, session, &ids)
            hasEvents = !events.ids.isEmpty
            if hasEvents {
                parameters += [.ints(events.ids), .texts(events.statuses), .bool(outbox.mustNotify())]
                sql = self.completeWithEventsSQL
            }
        }
        // Repeated, it changes nothing more: the order is no longer in the state that the change starts from. Its answer is "overtaken" then, and the
        // caller finds the order in the state that it wanted.
        let row: PostgresRow
        do throws(PostgresError) {
            row = try session.repeatable(sql, parameters).one()
        } catch  where hasEvents && mayStartAnew && IDSequence.messages.isCause(of: error) {
            _ = try ids.startAnew(session)
            return try self.write(session, changes, &ids, outbox, changed, mayStartAnew: false)
        }
        if let outbox, hasEvents { outbox.wrote(commands: 0, events: Int(try row.int(3))) }
        var status: [Int64: String] = [:]
        for (id, text) in zip(try row.ints(1), try row.texts(2)) { status[id] = text }
        changed?.changed(Array(status.keys))
        return (Timestamp(microsecondsSinceEpoch: try row.timestampMicros(0)), status)
    }
}
