// Invariant: an order is answered as made only after its row is durable; of drafts with one idempotency key one becomes a row.
//
// Bounds: those of the writer. Ids are taken from the sequence in blocks of 1024 (the sequence's increment); a block's rest is lost with the process.

import PostgresClient
import ServerKit
import Synchronization

/// What became of a draft.
enum InsertOutcome: Sendable {
    /// It has a row now.
    case made(Order)
    /// Another order has its key.
    case keyTaken
    /// Too many wait already.
    case overloaded
    /// PostgreSQL did not take it, or nobody knows whether it did.
    case unavailable(PostgresError)
}

/// Inserts orders in groups.
final class OrderInsertion: Sendable {
    struct Item: Sendable {
        var draft: OrderDraft
        /// PENDING, or FAILED with a reason for a rejection that is kept.
        var failReason: String?
        var done: CheckedContinuation<InsertOutcome, Never>
    }

    private let writer: GroupWriter<Item>
    let batches: Histogram

    init(configuration: PostgresConfiguration, maximumQueued: Int, maximumBatch: Int, batches: Histogram) throws(PostgresError) {
        self.batches = batches
        let ids = Mutex(IDBlock())
        self.writer = try GroupWriter(
            configuration: configuration,
            name: "order-insert",
            maximumQueued: maximumQueued,
            maximumBatch: maximumBatch
        ) { session, items in
            batches.record(UInt64(items.count))
            ids.withLock { OrderInsertion.commit(session, items, &$0) }
        }
    }

    var queued: Int { self.writer.queued }

    /// Makes an order and returns when it is durable.
    func insert(_ draft: OrderDraft, failReason: String? = nil) async -> InsertOutcome {
        await withCheckedContinuation { continuation in
            if !self.writer.add(Item(draft: draft, failReason: failReason, done: continuation)) {
                continuation.resume(returning: .overloaded)
            }
        }
    }

    func shutdown() async { await self.writer.shutdown() }

    /// Ids not handed out yet. Only the writer's thread uses it.
    struct IDBlock {
        static let size: Int64 = 1024
        var next: Int64 = 0
        var end: Int64 = 0
    }

    static let insertSQL = """
        with made as (
          insert into orders (id, product_id, product_code, buyer_id, quantity, unit_price, status, fail_reason, idempotency_key)
          select i, p, c, b, q, u, case when f is null then 'PENDING' else 'FAILED' end, f, k
          from unnest($1, $2, $3, $4, $5, $6, $7, $8) as t(i, p, c, b, q, u, f, k)
          on conflict do nothing
          returning id
        )
        select now(), coalesce(array_agg(id), '{}') from made
        """

    private static func commit(_ session: PostgresSession, _ items: ArraySlice<Item>, _ block: inout IDBlock) {
        do throws(PostgresError) {
            let ids = try self.takeIDs(items.count, session, &block)
            try self.insert(session, items, ids)
        } catch {
            // What the server refused may be one order's fault; the others must not fail for it.
            if case .server = error.code, !error.isTransient, items.count > 1 {
                for index in items.indices { self.commit(session, items[index...index], &block) }
                return
            }
            for item in items { item.done.resume(returning: .unavailable(error)) }
        }
    }

    private static func takeIDs(_ count: Int, _ session: PostgresSession, _ block: inout IDBlock) throws(PostgresError) -> [Int64] {
        var ids: [Int64] = []
        ids.reserveCapacity(count)
        while ids.count < count {
            if block.next == block.end {
                block.next = try session.repeatable("select nextval('order_ids')", []).one().int(0)
                block.end = block.next + IDBlock.size
            }
            ids.append(block.next)
            block.next += 1
        }
        return ids
    }

    private static func insert(_ session: PostgresSession, _ items: ArraySlice<Item>, _ ids: [Int64]) throws(PostgresError) {
        let parameters: [PostgresValue] = [
            .ints(ids),
            .ints(items.map(\.draft.productID)),
            .optionalTexts(items.map(\.draft.productCode)),
            .optionalTexts(items.map(\.draft.buyerID)),
            .ints(items.map(\.draft.quantity)),
            .optionalInts(items.map(\.draft.unitPrice)),
            .optionalTexts(items.map(\.failReason)),
            .optionalTexts(items.map(\.draft.idempotencyKey)),
        ]
        let row: PostgresRow
        do throws(PostgresError) {
            row = try session.query(self.insertSQL, parameters).one()
        } catch  where error.isOutcomeUnknown {
            try self.settle(session, items, ids, parameters)
            return
        }
        let now = Timestamp(microsecondsSinceEpoch: try row.timestampMicros(0))
        let made = try row.ints(1)
        if made.count == ids.count {
            for (item, id) in zip(items, ids) { item.done.resume(returning: .made(item.order(id: id, at: now))) }
        } else {
            let made = Set(made)
            for (item, id) in zip(items, ids) {
                item.done.resume(returning: made.contains(id) ? .made(item.order(id: id, at: now)) : .keyTaken)
            }
        }
    }

    /// After a statement whose outcome is unknown: the same rows once more, under the same ids, then a look at which of them are there.
    private static func settle(
        _ session: PostgresSession,
        _ items: ArraySlice<Item>,
        _ ids: [Int64],
        _ parameters: [PostgresValue]
    ) throws(PostgresError) {
        _ = try session.repeatable(self.insertSQL, parameters)
        var made: [Int64: Timestamp] = [:]
        for row in try session.repeatable("select id, created_at from orders where id = any($1)", [.ints(ids)]) {
            made[try row.int(0)] = Timestamp(microsecondsSinceEpoch: try row.timestampMicros(1))
        }
        for (item, id) in zip(items, ids) {
            item.done.resume(returning: made[id].map { .made(item.order(id: id, at: $0)) } ?? .keyTaken)
        }
    }
}

extension OrderInsertion.Item {
    fileprivate func order(id: Int64, at time: Timestamp) -> Order {
        Order(
            id: id,
            productID: self.draft.productID,
            productCode: self.draft.productCode,
            buyerID: self.draft.buyerID,
            quantity: self.draft.quantity,
            unitPrice: self.draft.unitPrice,
            status: self.failReason == nil ? .pending : .failed,
            failReason: self.failReason,
            idempotencyKey: self.draft.idempotencyKey,
            run: 1,
            cancelRequestedAt: nil,
            cancelKey: nil,
            createdAt: time,
            updatedAt: time
        )
    }
}
