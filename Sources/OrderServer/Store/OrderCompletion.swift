// Invariant: a status changes only along PENDING -> CONFIRMED | FAILED and CONFIRMED -> CANCELLED, by the statement's own condition, whoever else
// settles the order at the same time. An order is answered in a final state only after that state is durable.
//
// Bounds: those of the writer.

import PostgresClient
import ServerKit

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

/// Writes orders' final states in groups.
final class OrderCompletion: Sendable {
    struct Item: Sendable {
        var id: Int64
        var run: Int64
        var from: OrderStatus
        var to: OrderStatus
        var failReason: String?
        /// JSON of the records to append to the order's history.
        var steps: String
        var done: CheckedContinuation<CompletionOutcome, Never>
    }

    private let writer: GroupWriter<Item>

    init(configuration: PostgresConfiguration, maximumQueued: Int, maximumBatch: Int, batches: Histogram) throws(PostgresError) {
        self.writer = try GroupWriter(
            configuration: configuration,
            name: "order-complete",
            maximumQueued: maximumQueued,
            maximumBatch: maximumBatch
        ) { session, items in
            batches.record(UInt64(items.count))
            OrderCompletion.commit(session, items)
        }
    }

    var queued: Int { self.writer.queued }

    /// Moves an order on and returns when that is durable.
    func complete(
        _ order: Order,
        from: OrderStatus,
        to: OrderStatus,
        failReason: String?,
        records: [StepRecord]
    ) async -> CompletionOutcome {
        let steps = StepRecord.json(records)
        return await withCheckedContinuation { continuation in
            let item = Item(
                id: order.id,
                run: order.run,
                from: from,
                to: to,
                failReason: failReason,
                steps: steps,
                done: continuation
            )
            if !self.writer.add(item) { continuation.resume(returning: .overloaded) }
        }
    }

    func shutdown() async { await self.writer.shutdown() }

    static let completeSQL = """
        with done as (
          update orders o set status = t.s, fail_reason = t.f, updated_at = now(),
            steps = case when o.steps = '' then t.h else concat_ws(',', o.steps, nullif(t.h, '')) end
          from unnest($1, $2, $3, $4, $5, $6) as t(i, r, w, s, f, h)
          where o.id = t.i and o.run = t.r and o.status = t.w
          returning o.id, o.status
        )
        select now(), coalesce(array_agg(id), '{}'), coalesce(array_agg(status), '{}') from done
        """

    private static func commit(_ session: PostgresSession, _ items: ArraySlice<Item>) {
        do throws(PostgresError) {
            try self.write(session, items)
        } catch {
            if case .server = error.code, !error.isTransient, items.count > 1 {
                for index in items.indices { self.commit(session, items[index...index]) }
                return
            }
            for item in items { item.done.resume(returning: .unavailable(error)) }
        }
    }

    private static func write(_ session: PostgresSession, _ items: ArraySlice<Item>) throws(PostgresError) {
        // Rows are locked in id order, so that two servers that settle the same orders seldom lock each other out. Of the same order twice in one
        // statement one is written: the status that it has then tells whose change it was.
        let items = items.sorted { $0.id < $1.id }
        // Repeated, it changes nothing more: the order is no longer in the state that the change starts from. Its answer is "overtaken" then, and the
        // caller finds the order in the state that it wanted.
        let row = try session.repeatable(
            self.completeSQL,
            [
                .ints(items.map(\.id)),
                .ints(items.map(\.run)),
                .texts(items.map(\.from.rawValue)),
                .texts(items.map(\.to.rawValue)),
                .optionalTexts(items.map(\.failReason)),
                .texts(items.map(\.steps)),
            ]
        ).one()
        let now = Timestamp(microsecondsSinceEpoch: try row.timestampMicros(0))
        var status: [Int64: String] = [:]
        for (id, text) in zip(try row.ints(1), try row.texts(2)) { status[id] = text }
        for item in items { item.done.resume(returning: status[item.id] == item.to.rawValue ? .written(at: now) : .overtaken) }
    }
}
