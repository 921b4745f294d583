import StockContract

/// Pieces of the statements that write messages beside the orders they tell of.
///
/// The texts are made in SQL, out of the rows really written: a draft whose key was taken, or a change that somebody else was faster with, is in no message.
/// What callers give goes into parameters; these pieces hold none of it.
enum OutboxSQL {
    /// Sends commands for the product server.
    static let decreaseTopic = StockCommand.type
    /// Lanes of commands; events have the lane behind them.
    static let commandLanes: Int64 = 16

    /// One of the two kinds of rows: each has lanes, a publisher and a relay of its own, so that commands never wait for events.
    enum Kind: Int64, Sendable {
        case commands = 0
        case events = 1

        /// The lanes of the kind.
        var lanes: ClosedRange<Int64> {
            switch self {
            case .commands: 0...commandLanes - 1
            case .events: commandLanes...commandLanes
            }
        }

        /// The condition on a row `o` that the index of waiting rows begins with.
        var condition: String { "o.lane / \(commandLanes) = \(self.rawValue)" }
    }

    /// The statement's time as RFC 3339, as the table `clock (ts)`.
    static let clock = "clock as (select to_char(now() at time zone 'UTC', \(timeFormat)) as ts)"

    private static let timeFormat = #"'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'"#

    private static func json(_ text: String) -> String { "coalesce(to_json(\(text))::text, 'null')" }

    /// One order of a command. Of a row `d`; `$traces` is the number of a parameter of type `jsonb`: trace contexts by order id, or null.
    static func commandOrder(traces: Int) -> String {
        """
        '{"orderId":' || d.id || ',"key":"DEC-' || d.id || '","quantity":' || d.quantity || ',"buyerId":' || \(json("d.buyer_id"))
          || coalesce(',"traceparent":' || to_json($\(traces)::jsonb ->> d.id::text)::text, '') || '}'
        """
    }

    /// One order of an event, of a row `d` that has just been written.
    static func eventOrder(created: String) -> String {
        """
        '{"id":' || d.id || ',"productId":' || d.product_id || ',"buyerId":' || \(json("d.buyer_id")) || ',"quantity":' || d.quantity
          || ',"status":"' || d.status || '","failReason":' || \(json("d.fail_reason")) || ',"createdAt":"' || \(created)
          || '","updatedAt":"' || (select ts from clock) || '","productCode":' || \(json("d.product_code"))
          || ',"unitPrice":' || coalesce(d.unit_price::text, 'null') || ',"run":' || d.run || ',"version":' || d.version || '}'
        """
    }

    /// The time an order was made, of a row `d` made earlier.
    static let createdBefore = "to_char(d.created_at at time zone 'UTC', \(timeFormat))"
    /// The same, of a row made by this statement.
    static let createdNow = "(select ts from clock)"

    /// A message's members in front of `orders`.
    static func head(type: String, id: String, product: String? = nil) -> String {
        let product = product.map { #"'"productId":' || \#($0) || ',' || "# } ?? ""
        return
            #"'{"version":1,"type":"' || \#(type) || '","messageId":"' || \#(id) || '",' || \#(product)'"time":"' || (select ts from clock) || '","orders":['"#
    }

    /// The type of the event that tells of each status.
    private static let kinds = [
        (OrderStatus.pending, OrderEvent.Kind.created), (.confirmed, .confirmed), (.failed, .failed), (.cancelled, .cancelled),
    ].map { "when '\($0.rawValue)' then '\($1.rawValue)'" }.joined(separator: " ")

    /// Writes one event row for each kind of change in `rows`, a table of `d`.
    ///
    /// `$first`, `$first + 1`: ids (`bigint[]`) and statuses (`text[]`) of the rows to write; empty when events are not written.
    static func events(rows: String, first: Int, created: String) -> String {
        """
        insert into outbox (id, lane, topic, order_ids, payload)
          select e.id, \(commandLanes), e.topic, array_agg(d.id order by d.id),
            \(head(type: "e.topic", id: "e.id")) || string_agg(\(eventOrder(created: created)), ',' order by d.id) || ']}'
          from (
            select id, status, case status \(kinds) end as topic
            from unnest($\(first)::bigint[], $\(first + 1)::text[]) as e(id, status)
          ) as e join \(rows) d on d.status = e.status
          group by e.id, e.topic returning 1
        """
    }
}
