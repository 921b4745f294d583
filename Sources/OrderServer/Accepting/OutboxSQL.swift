import StockContract

/// Parts of the statements that write messages together with the orders that they are about.
///
/// Functions of V005_outbox_messages.sql make the messages' texts from the rows that were really written. So a draft whose key was taken, or a change that came
/// too late, is in no message. Values from callers go into parameters; these parts contain none.
enum OutboxSQL {
    /// The topic of rows that carry a command for the product server.
    static let decreaseTopic = StockCommand.type
    /// The number of lanes for commands. Events have the next lane.
    static let commandLanes: Int64 = 16

    /// The kind of a row. Each kind has lanes, a publisher and a relay of its own, so that commands never wait for events.
    enum Kind: Int64, Sendable {
        case commands = 0
        case events = 1

        var lanes: ClosedRange<Int64> {
            switch self {
            case .commands: 0...commandLanes - 1
            case .events: commandLanes...commandLanes
            }
        }

        /// The condition on a row `o` that matches the beginning of the index of waiting rows.
        var condition: String { "o.lane / \(commandLanes) = \(self.rawValue)" }
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
    /// The time when an order was made, for a row that this statement makes.
    static let createdNow = "(select ts from clock)"

    /// The type of the event for each status.
    private static let kinds = [
        (OrderStatus.pending, OrderEvent.Kind.created), (.confirmed, .confirmed), (.failed, .failed), (.cancelled, .cancelled),
    ].map { "when '\($0.rawValue)' then '\($1.rawValue)'" }.joined(separator: " ")

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
}
