// Invariant: an order is answered as made only after its row is durable, and, from the same statement, the message that carries it. Of several drafts of one
//   buyer with the same idempotency key, one becomes a row and is in a message.
//
// A group of accepted orders becomes a message for each product, which goes through the broker and back. At a moderate load, small groups cost more than the
// orders in them. So if such a group was written and fewer than 16 orders have come meanwhile, they wait for more, for 1.5 ms at most.
//
// If an id has a row already, that row is another order's: the sequence is behind, for example because the database was restored. Then the sequence is raised,
// and the orders concerned take other ids, once.
//
// An insert waits for another transaction only if that is writing the same buyer's key, or has locked the table; see `GroupWrite`.
//
// Bounds: those of the writer. Ids are taken from the sequences in blocks of 1024 (the sequences' increment). A process loses the rest of its block when it
//   ends.

import HotPath
import PostgresClient
import ServerMetrics
import StockContract
import StrictJSON
import Synchronization

enum InsertOutcome: Sendable {
    /// The order has a row now.
    case made(Order)
    /// Another order of the same buyer has the draft's key.
    case keyTaken
    /// Too many drafts wait already.
    case overloaded
    /// PostgreSQL refused the draft, or the outcome is unknown.
    case unavailable(PostgresError)
}

/// Inserts orders in groups.
final class OrderInsertion: OrderGroup {
    struct Item: Sendable {
        var draft: OrderDraft
        /// Nil for a PENDING order; the reason of a FAILED order that keeps a rejection.
        var failReason: String?
        /// Whether a message carries the order to the product server.
        var isAsynchronous = false
        /// When the buyer is answered that the order was not made, so that it must not be made later; nil: never.
        var deadline: ContinuousClock.Instant?
        /// Called once, on the writer's thread.
        var done: @Sendable (InsertOutcome) -> Void
    }

    /// Ids that are not used yet. Only the writer's thread uses this value.
    struct IDs {
        var orders = IDSequence.orders.block
        var messages = IDSequence.messages.block
        /// Whether the orders of this group may still take other ids. They do that once.
        var mayStartAnew = true
        /// Called when ids had a row already, with the raise of the sequence that followed.
        let cameAgain: @Sendable (IDSequence, IDSequence.Raise?) -> Void
    }

    let group: GroupCommit<Item>
    let batches: Histogram

    init(
        configuration: PostgresConfiguration,
        maximumQueued: Int,
        maximumBatch: Int,
        batches: Histogram,
        outbox: OutboxWriting? = nil,
        pace: GroupCommit<Item>.Pace? = nil,
        turns: GroupTurns? = nil,
        onTrouble: OrderWriterTrouble? = nil,
        idsCameAgain: @escaping @Sendable (IDSequence, IDSequence.Raise?) -> Void = { _, _ in }
    ) throws(PostgresError) {
        self.batches = batches
        let ids = Mutex(IDs(cameAgain: idsCameAgain))
        group = GroupCommit(
            worker: try PostgresWorker(orders: "order-insert", configuration, onTrouble),
            capacity: maximumQueued,
            maximumBatch: maximumBatch,
            gathering: .init(enough: 16, time: .microseconds(1_500)) { $0.contains { $0.isAsynchronous } },
            pace: pace,
            turns: turns
        ) { _, session, items in
            // While the database hangs, waiting callers give up one after another. Their orders must not be made afterwards.
            let items = OrderInsertion.inTime(items)
            guard !items.isEmpty else { return }
            batches.record(UInt64(items.count))
            session.limit = items.compactMap(\.deadline).min().map { max($0, .now + OrderInsertion.leastTime) }
            defer { session.limit = nil }
            ids.withLock { ids in
                ids.mayStartAnew = true
                OrderInsertion.commit(session, items, &ids, outbox)
            }
        } fail: { items, why in
            for item in items { item.done(why == .full ? .overloaded : .unavailable(why.error)) }
        }
    }

    /// Makes an order, and returns when it is durable.
    func insert(_ draft: OrderDraft, failReason: String? = nil, isAsynchronous: Bool = false) async -> InsertOutcome {
        await withCheckedContinuation { continuation in
            self.insert(draft, failReason: failReason, isAsynchronous: isAsynchronous) { continuation.resume(returning: $0) }
        }
    }

    /// Makes an order. `done` is called on the writer's thread when it is durable, or at once if too many wait.
    func insert(
        _ draft: OrderDraft,
        failReason: String? = nil,
        isAsynchronous: Bool = false,
        deadline: ContinuousClock.Instant? = nil,
        done: @escaping @Sendable (InsertOutcome) -> Void
    ) {
        group.add(Item(draft: draft, failReason: failReason, isAsynchronous: isAsynchronous, deadline: deadline, done: done))
    }

    /// The time that a group's statement has at least, even if one of its buyers has less left.
    private static let leastTime: Duration = .milliseconds(200)

    private static func inTime(_ items: ArraySlice<Item>) -> ArraySlice<Item> {
        let now = ContinuousClock.now
        guard items.contains(where: { $0.deadline.map { $0 <= now } ?? false }) else { return items }
        let late = PostgresError(code: .timedOut(outcomeUnknown: false), message: "the order waited for longer than its buyer")
        var inTime: [Item] = []
        for item in items {
            if let deadline = item.deadline, deadline <= now { item.done(.unavailable(late)) } else { inTime.append(item) }
        }
        return inTime[...]
    }

    private static func write(
        _ session: PostgresSession,
        _ items: ArraySlice<Item>,
        _ ids: inout IDs,
        _ outbox: OutboxWriting?
    ) throws(PostgresError) {
        let orderIDs = try ids.orders.take(items.count, session)
        let insertion = try self.insertion(session, items, orderIDs, &ids, outbox)
        try insert(session, items, orderIDs, insertion, &ids)
    }

    private static func commit(_ session: PostgresSession, _ items: ArraySlice<Item>, _ ids: inout IDs, _ outbox: OutboxWriting?) {
        GroupWrite.run(items, patience: .seconds(2)) { (part) throws(PostgresError) in
            do throws(PostgresError) {
                try self.write(session, part, &ids, outbox)
            } catch  where ids.mayStartAnew && IDSequence.messages.isCause(of: error) {
                ids.mayStartAnew = false
                // If the sequence could not be raised, the next statement fails in the same way.
                ids.cameAgain(.messages, (try? ids.messages.startAnew(session)) ?? nil)
                try self.write(session, part, &ids, outbox)
            }
        } putOut: { _ in
            nil
        } fail: { part, error in
            session.workFailed(error)
            for item in part { item.done(.unavailable(error)) }
        }
    }

    private static func insert(
        _ session: PostgresSession,
        _ items: ArraySlice<Item>,
        _ ids: [Int64],
        _ insertion: Insertion,
        _ blocks: inout IDs
    ) throws(PostgresError) {
        let row: PostgresRow
        do throws(PostgresError) {
            row = try session.query(insertion.sql, insertion.parameters).one()
        } catch {
            insertion.outbox?.wroteNone(room: insertion.room)
            guard error.isOutcomeUnknown else { throw error }
            let unknown = error
            do throws(PostgresError) {
                try settle(session, items, ids, insertion)
            } catch {
                // The error is not thrown: the caller would insert the orders again under new ids, and one that exists already would be made twice.
                for item in items { item.done(.unavailable(error.isOutcomeUnknown ? error : unknown)) }
            }
            return
        }
        let now = Timestamp(try row.decode(0))
        let made = try row.decode(1, as: [Int64].self)
        if !made.isEmpty { session.worked() }
        if let outbox = insertion.outbox { outbox.wrote(commands: try row.decode(2), events: try row.decode(3), room: insertion.room) }
        let isWhole = made.count == ids.count
        let others = isWhole ? [] : withTakenIDs(session, items, ids, made: Set(made))
        // The orders continue while PostgreSQL works on the next group, if there is one.
        session.postpone {
            let made = isWhole ? [] : Set(made)
            for (item, id) in zip(items, ids) where isWhole || !others.contains(id) {
                item.done(isWhole || made.contains(id) ? .made(item.order(id: id, at: now)) : .keyTaken)
            }
        }
        if !others.isEmpty {
            let again = zip(items, ids).filter { others.contains($1) }.map(\.0)
            startAnew(session, again[...], &blocks, insertion.outbox)
        }
    }

    /// The ids that have no row from this statement because another order has them, so that their drafts are no repeats. A draft without a key
    /// is always one of them.
    private static func withTakenIDs(
        _ session: PostgresSession,
        _ items: ArraySlice<Item>,
        _ ids: [Int64],
        made: Set<Int64>
    ) -> Set<Int64> {
        var taken: Set<Int64> = []
        var unclear: [Int64] = []
        for (item, id) in zip(items, ids) where !made.contains(id) {
            if item.draft.idempotencyKey == nil { taken.insert(id) } else { unclear.append(id) }
        }
        guard !unclear.isEmpty else { return taken }
        do throws(PostgresError) {
            for row in try session.query("select id from orders where id = any($1)", [.ints(unclear)]) {
                taken.insert(try row.decode(0, as: Int64.self))
            }
        } catch {
            // Orders that were made must continue. An unclear draft is treated as a repeat, whose order is looked for by its key.
        }
        return taken
    }

    /// Gives other ids, above every id in the table, to orders whose ids had rows already.
    private static func startAnew(_ session: PostgresSession, _ items: ArraySlice<Item>, _ ids: inout IDs, _ outbox: OutboxWriting?) {
        guard ids.mayStartAnew else {
            for item in items { item.done(.unavailable(PostgresError(code: .misuse, message: "the ids of the orders are used already"))) }
            return
        }
        ids.mayStartAnew = false
        ids.cameAgain(.orders, (try? ids.orders.startAnew(session)) ?? nil)
        commit(session, items, &ids, outbox)
    }

    /// Settles a statement whose outcome is unknown: inserts the same rows again under the same ids, then looks which of them exist.
    private static func settle(
        _ session: PostgresSession,
        _ items: ArraySlice<Item>,
        _ ids: [Int64],
        _ insertion: Insertion
    ) throws(PostgresError) {
        _ = try session.repeatable(insertion.sql, insertion.parameters)
        // The repeat may have found the rows and written nothing. What it found must be at the synchronous standby before it is told.
        try session.awaitReplication()
        // It is unknown how many rows the two statements wrote. The next count of the outbox tells.
        insertion.outbox?.wake()
        var made: [Int64: Timestamp] = [:]
        // A row that is older than any running statement belongs to another order, which had the same id.
        let own = "select id, created_at from orders where id = any($1) and created_at > now() - interval '1 minute'"
        for row in try session.repeatable(own, [.ints(ids)]) {
            made[try row.decode(0, as: Int64.self)] = Timestamp(try row.decode(1))
        }
        for (item, id) in zip(items, ids) {
            item.done(made[id].map { .made(item.order(id: id, at: $0)) } ?? .keyTaken)
        }
    }
}

extension OrderInsertion.Item {
    fileprivate func order(id: Int64, at time: Timestamp) -> Order {
        Order(
            id: id,
            productID: draft.productID,
            productCode: draft.productCode,
            buyerID: draft.buyerID,
            quantity: draft.quantity,
            unitPrice: draft.unitPrice,
            status: self.failReason == nil ? .pending : .failed,
            failReason: self.failReason,
            idempotencyKey: draft.idempotencyKey,
            run: 1,
            cancelRequestedAt: nil,
            cancelKey: nil,
            createdAt: time,
            updatedAt: time,
            wentOverBroker: isAsynchronous,
            requestID: draft.requestID?.description
        )
    }
}
