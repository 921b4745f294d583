import PostgresClient
import StockContract
import StrictJSON

/// A replica's orders and its position, in a database of its own.
struct FollowStore: Sendable {
    let pool: PostgresPool
    /// The stream's name, under which the position is kept.
    let stream: String

    /// The migrations of a replica's database that come in addition to ``OrderStore/migrations``.
    static var migrations: [Migration] {
        [Migration(version: 1, name: "follow", sql: String(decoding: PackageResources.F001_follow_sql, as: UTF8.self))]
    }
    /// The table of applied migrations of this kind.
    static let migrationsTable = "follow_migrations"

    /// The position, and the time when the replica was last known to be complete; nil if it never was.
    func load() async throws(PostgresError) -> (position: FollowPosition, completeAt: Timestamp?) {
        let rows = try await pool.query(
            "select last_offset, missed_at_beginning, missed_later, gaps, complete_at from follow_position where stream = $1",
            [.text(stream)]
        )
        guard let row = rows.first else { return (FollowPosition(), nil) }
        func count(_ number: Int64) throws(PostgresError) -> UInt64 {
            guard let count = UInt64(exactly: number) else {
                throw PostgresError(code: .decoding, message: "the position in \(stream) holds \(number)")
            }
            return count
        }
        var last: UInt64?
        if let offset = try row.decode(0, as: Int64?.self) { last = try count(offset) }
        let position = FollowPosition(
            last: last,
            missedAtBeginning: try count(try row.decode(1, as: Int64.self)),
            missedLater: try count(try row.decode(2, as: Int64.self)),
            gaps: try count(try row.decode(3, as: Int64.self))
        )
        return (position, try row.decode(4, as: PostgresTimestamp?.self).map(Timestamp.init))
    }

    /// Writes orders and the position after them in one statement, which may be repeated.
    /// - Parameter orders: at most one version of each order
    /// - Returns: the ids of the orders that were older here, or missing
    func apply(_ orders: [VersionedOrder], _ position: FollowPosition) async throws(PostgresError) -> [Int64] {
        // The orders are sorted by id, so that two writers of the same orders seldom deadlock.
        let orders = orders.sorted { $0.order.id < $1.order.id }
        return try await pool.query(
            FollowStore.applySQL,
            [
                .text(stream), .optionalInt(position.last.map { Int64(clamping: $0) }),
                .int(Int64(clamping: position.missedAtBeginning)),
                .int(Int64(clamping: position.missedLater)), .int(Int64(clamping: position.gaps)),
                .ints(orders.map(\.order.id)), .ints(orders.map(\.order.productID)), .optionalTexts(orders.map(\.order.productCode)),
                .optionalTexts(orders.map(\.order.buyerID)), .ints(orders.map(\.order.quantity)),
                .optionalInts(orders.map(\.order.unitPrice)), .texts(orders.map(\.order.status.rawValue)),
                .optionalTexts(orders.map(\.order.failReason)), .ints(orders.map(\.order.run)), .ints(orders.map(\.version)),
                .timestampsMicros(orders.map(\.order.createdAt.microsecondsSinceEpoch)),
                .timestampsMicros(orders.map(\.order.updatedAt.microsecondsSinceEpoch)),
            ]
        ).one().decode(0, as: [Int64].self)
    }

    private static let applySQL = """
        with here as (
          insert into follow_position as p (stream, last_offset, missed_at_beginning, missed_later, gaps)
          values ($1, $2::bigint, $3, $4, $5)
          on conflict (stream) do update set last_offset = excluded.last_offset, missed_at_beginning = excluded.missed_at_beginning,
            missed_later = excluded.missed_later, gaps = excluded.gaps, updated_at = now()
        ), put as (
          insert into orders as o (id, product_id, product_code, buyer_id, quantity, unit_price, status, fail_reason, run, version, created_at, updated_at)
          select * from unnest($6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
          on conflict (id) do update set product_id = excluded.product_id, product_code = excluded.product_code, buyer_id = excluded.buyer_id,
            quantity = excluded.quantity, unit_price = excluded.unit_price, status = excluded.status, fail_reason = excluded.fail_reason,
            run = excluded.run, version = excluded.version, created_at = excluded.created_at, updated_at = excluded.updated_at
          where excluded.version > o.version
          returning o.id
        )
        select coalesce(array_agg(id), '{}') from put
        """

    /// Records that the replica is complete.
    func noteComplete(at time: Timestamp) async throws(PostgresError) {
        _ = try await pool.query(
            """
            insert into follow_position as p (stream, complete_at) values ($1, $2)
            on conflict (stream) do update set complete_at = greatest(p.complete_at, excluded.complete_at)
            """,
            [.text(stream), .timestampMicros(time.microsecondsSinceEpoch)]
        )
    }
}
