// The statements that make orders, and their parameters.

import PostgresClient
import StockContract
import StrictJSON

extension OrderInsertion {
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

    private static let insertWithMessagesSQL = """
        with \(OutboxSQL.clock), made as (
          insert into orders as o
            (id, product_id, product_code, buyer_id, quantity, unit_price, status, fail_reason, idempotency_key, message_id)
          select i, p, c, b, q, u, case when f is null then 'PENDING' else 'FAILED' end, f, k, m
          from unnest($1, $2, $3, $4, $5, $6, $7, $8, $9) as t(i, p, c, b, q, u, f, k, m)
          on conflict do nothing
          returning o.id, o.product_id, o.buyer_id, o.quantity, o.status, o.message_id
        ), commands as (
          insert into outbox (id, lane, topic, product_id, order_ids, payload, traceparent)
          select d.message_id, d.product_id % \(OutboxSQL.commandLanes), '\(OutboxSQL.decreaseTopic)', d.product_id, array_agg(d.id order by d.id),
            \(OutboxSQL.command(traces: 10)),
            case when count(*) = 1 then min($10::jsonb ->> d.id::text) end
          from made d where d.message_id is not null group by d.message_id, d.product_id returning 1
        ), events as (
          \(OutboxSQL.drafts(rows: "made", first: 11, hasVersions: false))
        )
        select now(), coalesce(array_agg(id), '{}'), (select count(*) from commands), (select count(*) from events),
          case when $15 then pg_notify('\(OutboxChannel.name)', '')::text end
        from made
        """

    /// For groups whose orders all go by a call.
    private static let insertWithEventsSQL = """
        with made as (
          insert into orders as o (id, product_id, product_code, buyer_id, quantity, unit_price, status, fail_reason, idempotency_key)
          select i, p, c, b, q, u, case when f is null then 'PENDING' else 'FAILED' end, f, k
          from unnest($1, $2, $3, $4, $5, $6, $7, $8) as t(i, p, c, b, q, u, f, k)
          on conflict do nothing
          returning o.id, o.status
        ), events as (
          \(OutboxSQL.drafts(rows: "made", first: 9, hasVersions: false))
        )
        select now(), coalesce(array_agg(id), '{}'), 0::bigint, (select count(*) from events),
          case when $13 then pg_notify('\(OutboxChannel.name)', '')::text end
        from made
        """

    /// A statement, and its data beside the orders' own columns.
    struct Insertion {
        var sql: String
        var parameters: [PostgresValue]
        var outbox: OutboxWriting?
        /// Rows of events for which room was reserved.
        var room = 0
    }

    static func insertion(
        _ session: PostgresSession,
        _ items: ArraySlice<Item>,
        _ orderIDs: [Int64],
        _ ids: inout IDs,
        _ outbox: OutboxWriting?
    ) throws(PostgresError) -> Insertion {
        let orders: [PostgresValue] = [
            .ints(orderIDs),
            .ints(items.map(\.draft.productID)),
            .optionalTexts(items.map(\.draft.productCode)),
            .optionalTexts(items.map(\.draft.buyerID)),
            .ints(items.map(\.draft.quantity)),
            .optionalInts(items.map(\.draft.unitPrice)),
            .optionalTexts(items.map(\.failReason)),
            .optionalTexts(items.map(\.draft.idempotencyKey)),
        ]
        guard let outbox else { return Insertion(sql: insertSQL, parameters: orders) }
        var messages: [Int64?] = []
        messages.reserveCapacity(items.count)
        var messageOfProduct: [Int64: Int64] = [:]
        var statuses: Set<OrderStatus> = []
        for item in items {
            statuses.insert(item.failReason == nil ? .pending : .failed)
            guard item.isAsynchronous else {
                messages.append(nil)
                continue
            }
            if let known = messageOfProduct[item.draft.productID] {
                messages.append(known)
            } else {
                let id = try ids.messages.take(session)
                messageOfProduct[item.draft.productID] = id
                messages.append(id)
            }
        }
        let events = try outbox.eventRows(statuses, orders: items.count, session, &ids.messages)
        if messageOfProduct.isEmpty, events.ids.isEmpty { return Insertion(sql: insertSQL, parameters: orders) }
        let drafts = self.drafts(items, orderIDs, events.ids, events.statuses)
        let isSynchronous = messageOfProduct.isEmpty
        return Insertion(
            sql: isSynchronous ? self.insertWithEventsSQL : insertWithMessagesSQL,
            parameters: orders + (isSynchronous ? [] : [.optionalInts(messages), traces(items, orderIDs)]) + drafts.parameters + [
                .bool(outbox.mustNotify())
            ],
            outbox: outbox,
            room: events.ids.count
        )
    }

    /// The drafts of the orders' events.
    private static func drafts(_ items: ArraySlice<Item>, _ orderIDs: [Int64], _ ids: [Int64], _ statuses: [String]) -> DraftRows {
        var rows = DraftRows(ids: ids, statuses: statuses)
        for status in statuses {
            let isPending = status == OrderStatus.pending.rawValue
            var json = JSONWriter(capacity: 96 * items.count)
            for (item, id) in zip(items, orderIDs) where (item.failReason == nil) == isPending {
                EventDraft.add(item.draft, id: id, failReason: item.failReason, to: &json)
            }
            rows.drafts.append(json.string)
        }
        return rows
    }

    /// A JSON object of trace contexts by order id; null if there is none.
    private static func traces(_ items: ArraySlice<Item>, _ ids: [Int64]) -> PostgresValue {
        guard items.contains(where: { $0.isAsynchronous && $0.draft.traceparent != nil }) else { return .null }
        var json = JSONWriter()
        json.object { json in
            for (item, id) in zip(items, ids) {
                guard item.isAsynchronous, let trace = item.draft.traceparent else { continue }
                json.name(String(id))
                json.value(trace)
            }
        }
        return .json(json.string)
    }
}
