import StockContract

/// Parts of the statements that write messages together with the orders that they are about.
///
/// An order whose key was taken, or whose change came too late, is in no message: functions of V005_outbox_messages.sql make a message's text from the rows that
/// were really written, and a draft of an event is kept with the ids of those rows (``EventDraft``). Values from callers go into parameters; these parts contain
/// none.
enum OutboxSQL {
    /// The topic of rows that carry a command for the product server.
    static let decreaseTopic = StockCommand.type
    /// The number of lanes for commands. Events have the next lane.
    static let commandLanes: Int64 = 16
    /// The lane of events that are drafts. Relays of servers that know no drafts leave it alone.
    static let draftLane: Int64 = 17

    /// The kind of a row. Each kind has lanes, a publisher and a relay of its own, so that commands never wait for events.
    enum Kind: Int64, Sendable {
        case commands = 0
        case events = 1

        var lanes: ClosedRange<Int64> {
            switch self {
            case .commands: 0...commandLanes - 1
            case .events: commandLanes...draftLane
            }
        }

        /// The condition on a row `o` that matches the beginning of the index of waiting rows.
        var condition: String { "o.lane / \(commandLanes) = \(rawValue)" }
    }

    /// The statement's time as RFC 3339, in the table `clock (ts)`.
    static let clock = "clock as (select outbox_time(now()) as ts)"

    /// The payload of a command, made from the rows `d` of one message. `$traces` is the number of a `jsonb` parameter with the trace contexts by order id, or
    /// null.
    static func command(traces: Int) -> String {
        let order = "outbox_command_order(d.id, d.quantity, d.buyer_id, $\(traces)::jsonb ->> d.id::text)"
        return """
            outbox_message('\(decreaseTopic)', d.message_id, d.product_id, (select ts from clock), string_agg(\(order), ',' order by d.id))
            """
    }

    /// One order of an event, made from a row `d` that has just been written.
    private static func eventOrder(created: String) -> String {
        """
        outbox_event_order(d.id, d.product_id, d.product_code, d.buyer_id, d.quantity, d.unit_price, d.status, d.fail_reason, d.run, d.version,
          \(created), (select ts from clock))
        """
    }

    /// The time when an order was made, for a row `d` that was made earlier.
    static let createdBefore = "outbox_time(d.created_at)"

    /// The type of the event for each status.
    static func kind(of status: OrderStatus) -> OrderEvent.Kind {
        switch status {
        case .pending: .created
        case .confirmed: .confirmed
        case .failed: .failed
        case .cancelled: .cancelled
        }
    }

    /// The status that orders have with an event of this type.
    static func status(of kind: OrderEvent.Kind) -> OrderStatus {
        switch kind {
        case .created: .pending
        case .confirmed: .confirmed
        case .failed: .failed
        case .cancelled: .cancelled
        }
    }

    private static let kinds = OrderStatus.allCases.map { "when '\($0.rawValue)' then '\(OutboxSQL.kind(of: $0).rawValue)'" }.joined(
        separator: " "
    )

    /// Writes one event row for each kind of change in `rows`, a table of rows `d`.
    ///
    /// `$first` and `$first + 1` have the ids (`bigint[]`) and statuses (`text[]`) of the event rows to write. They are empty if no events are to be written.
    static func events(rows: String, first: Int, created: String) -> String {
        """
        insert into outbox (id, lane, topic, order_ids, payload)
          select e.id, \(commandLanes), e.topic, array_agg(d.id order by d.id),
            outbox_message(e.topic, e.id, null, (select ts from clock), string_agg(\(eventOrder(created: created)), ',' order by d.id))
          from (
            select id, status, case status \(kinds) end as topic
            from unnest($\(first)::bigint[], $\(first + 1)::text[]) as e(id, status)
          ) as e join \(rows) d on d.status = e.status
          group by e.id, e.topic returning 1
        """
    }

    /// Writes one row for each draft of an event with the orders in `rows`, a table of `id`, `status` and, if `hasVersions`, `version`.
    ///
    /// `$first` to `$first + 3` have the ids (`bigint[]`), statuses, topics and drafts (`text[]`) of the rows to write.
    static func drafts(rows: String, first: Int, hasVersions: Bool) -> String {
        """
        insert into outbox (id, lane, topic, order_ids, payload, moment\(hasVersions ? ", versions" : ""))
          select e.id, \(draftLane), e.topic, d.ids, e.payload, now()\(hasVersions ? ", d.versions" : "")
          from unnest($\(first)::bigint[], $\(first + 1)::text[], $\(first + 2)::text[], $\(first + 3)::text[]) as e(id, status, topic, payload)
          cross join lateral (
            select array_agg(r.id) as ids\(hasVersions ? ", array_agg(r.version) as versions" : "") from \(rows) r where r.status = e.status
          ) as d
          where d.ids is not null returning 1
        """
    }
}
