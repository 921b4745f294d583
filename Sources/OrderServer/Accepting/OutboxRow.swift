import PostgresClient
import StrictJSON

/// The state of a message: `NEW -> SENT | FAILED`, `FAILED -> SENT | FAILED | DEAD`. When an operator requeues it, FAILED and DEAD become NEW again.
enum OutboxStatus: String, PostgresDecodable, Sendable, CaseIterable {
    /// Not published yet.
    case new = "NEW"
    /// The broker has confirmed it.
    case sent = "SENT"
    /// The last attempt failed, or its outcome is unknown. The message is tried again.
    case failed = "FAILED"
    /// The message was given up, and its orders were handed to recovery.
    case dead = "DEAD"
}

/// A row of the outbox, without its payload, as the admin port shows it.
struct OutboxRow: Sendable, Equatable {
    var id: Int64
    var topic: String
    var productID: Int64?
    var orderIDs: [Int64]
    var status: OutboxStatus
    /// How often an attempt to publish the message was made.
    var attempts: Int64
    var dueAt: Timestamp?
    var error: String?
    var createdAt: Timestamp
    var sentAt: Timestamp?
    var checkedAt: Timestamp?

    static let columns =
        "b.id, b.topic, b.product_id, b.order_ids, b.status, b.attempts, b.due_at, b.error, b.created_at, b.sent_at, b.checked_at"

    /// Reads ``columns``.
    init(row: PostgresRow, from first: Int = 0) throws(PostgresError) {
        id = try row.decode(first)
        topic = try row.decode(first + 1)
        productID = try row.decode(first + 2)
        orderIDs = try row.decode(first + 3)
        status = try row.decode(first + 4)
        attempts = try row.decode(first + 5)
        dueAt = try row.decode(first + 6, as: PostgresTimestamp?.self).map(Timestamp.init)
        self.error = try row.decode(first + 7)
        createdAt = Timestamp(try row.decode(first + 8))
        sentAt = try row.decode(first + 9, as: PostgresTimestamp?.self).map(Timestamp.init)
        checkedAt = try row.decode(first + 10, as: PostgresTimestamp?.self).map(Timestamp.init)
    }

    /// Writes the row as an object.
    func write(to json: inout JSONWriter) {
        json.object { json in
            json.member("id", id)
            json.member("topic", topic)
            json.member("productId", productID)
            json.array("orderIds", orderIDs) { $0.value($1) }
            json.member("status", status.rawValue)
            json.member("attempts", attempts)
            json.member("dueAt", dueAt)
            json.member("error", self.error)
            json.member("createdAt", createdAt)
            json.member("sentAt", sentAt)
            json.member("checkedAt", checkedAt)
        }
    }
}
