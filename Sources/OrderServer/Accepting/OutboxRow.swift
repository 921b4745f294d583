import PostgresClient
import ServerKit
import StrictJSON

/// Where a message is: `NEW -> SENT | FAILED`, `FAILED -> SENT | FAILED | DEAD`; an operator's requeue makes FAILED and DEAD NEW again.
enum OutboxStatus: String, Sendable, CaseIterable {
    /// Not published yet.
    case new = "NEW"
    /// The broker has confirmed it.
    case sent = "SENT"
    /// The last attempt failed, or nobody knows; it is tried again.
    case failed = "FAILED"
    /// Given up; its orders were handed to recovery.
    case dead = "DEAD"
}

/// A row of the outbox as the admin port shows it: without its payload.
struct OutboxRow: Sendable, Equatable {
    var id: Int64
    var topic: String
    var productID: Int64?
    var orderIDs: [Int64]
    var status: OutboxStatus
    /// How often it was published.
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
        let status = try row.text(first + 4)
        guard let known = OutboxStatus(rawValue: status) else {
            throw PostgresError(code: .decoding, message: "\(status) is no status of a message")
        }
        self.id = try row.int(first)
        self.topic = try row.text(first + 1)
        self.productID = try row.optionalInt(first + 2)
        self.orderIDs = try row.ints(first + 3)
        self.status = known
        self.attempts = try row.int(first + 5)
        self.dueAt = try row.optionalTimestampMicros(first + 6).map(Timestamp.init(microsecondsSinceEpoch:))
        self.error = try row.optionalText(first + 7)
        self.createdAt = Timestamp(microsecondsSinceEpoch: try row.timestampMicros(first + 8))
        self.sentAt = try row.optionalTimestampMicros(first + 9).map(Timestamp.init(microsecondsSinceEpoch:))
        self.checkedAt = try row.optionalTimestampMicros(first + 10).map(Timestamp.init(microsecondsSinceEpoch:))
    }

    /// Writes it as an object.
    func write(to json: inout JSONWriter) {
        json.object { json in
            json.member("id", self.id)
            json.member("topic", self.topic)
            json.member("productId", self.productID)
            json.array("orderIds", self.orderIDs) { $0.value($1) }
            json.member("status", self.status.rawValue)
            json.member("attempts", self.attempts)
            json.member("dueAt", self.dueAt)
            json.member("error", self.error)
            json.member("createdAt", self.createdAt)
            json.member("sentAt", self.sentAt)
            json.member("checkedAt", self.checkedAt)
        }
    }
}
