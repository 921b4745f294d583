import PostgresClient
import StockContract
import StrictJSON

extension Order {
    /// The columns that ``init(row:from:)`` reads, in order, of a table or alias `o`.
    static let columns = """
        o.id, o.product_id, o.product_code, o.buyer_id, o.quantity, o.unit_price, o.status, o.fail_reason, o.idempotency_key, o.run, \
        o.cancel_requested_at, o.cancel_key, o.created_at, o.updated_at, o.version, o.message_id is not null
        """

    static let columnCount = 16

    /// Reads ``columns`` of a row, beginning at column `first`.
    init(row: PostgresRow, from first: Int = 0) throws(PostgresError) {
        self.init(
            id: try row.decode(first),
            productID: try row.decode(first + 1),
            productCode: try row.decode(first + 2),
            buyerID: try row.decode(first + 3),
            quantity: try row.decode(first + 4),
            unitPrice: try row.decode(first + 5),
            status: try row.decode(first + 6),
            failReason: try row.decode(first + 7),
            idempotencyKey: try row.decode(first + 8),
            run: try row.decode(first + 9),
            cancelRequestedAt: try row.decode(first + 10, as: PostgresTimestamp?.self).map(Timestamp.init),
            cancelKey: try row.decode(first + 11),
            createdAt: Timestamp(try row.decode(first + 12)),
            updatedAt: Timestamp(try row.decode(first + 13)),
            version: try row.decode(first + 14),
            wentOverBroker: try row.decode(first + 15)
        )
    }
}

extension OrderStatus: PostgresDecodable {}

extension Timestamp {
    init(_ time: PostgresTimestamp) { self.init(microsecondsSinceEpoch: time.microsecondsSinceEpoch) }
}

extension StepRecord {
    /// Writes the record as an element of the column `steps`. An answer has the same form.
    func write(to json: inout JSONWriter) {
        json.object { json in
            json.member("step", step)
            json.member("run", run)
            json.member("action", action.rawValue)
            json.member("outcome", outcome)
            json.member("attempts", attempts)
            json.member("at", at)
        }
    }

    /// The records in the form in which they are appended to the column `steps`: objects separated by commas.
    static func json(_ records: [StepRecord]) -> String {
        var json = JSONWriter(capacity: 160)
        for record in records { record.write(to: &json) }
        return json.string
    }
}
