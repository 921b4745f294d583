import PostgresClient
import ServerKit

/// The outbox for operators and for recovery; the writers and the relay have statements of their own.
struct OutboxStore: Sendable {
    let pool: PostgresPool

    /// Messages, newest id first, and how many there are on all pages.
    func rows(status: OutboxStatus?, paging: Paging) async throws(PostgresError) -> (rows: [OutboxRow], total: Int64) {
        // One of four words, so that the indexes of the waiting and the dead are used.
        let filter = status.map { " where b.status = '\($0.rawValue)'" } ?? ""
        let total = try await self.pool.query("select count(*) from outbox b" + filter).one().int(0)
        guard paging.offset < total else { return ([], total) }
        var rows: [OutboxRow] = []
        for row in try await self.pool.query(
            "select \(OutboxRow.columns) from outbox b\(filter) order by b.id desc limit $1 offset $2",
            [.int(paging.size), .int(paging.offset)]
        ) { rows.append(try OutboxRow(row: row)) }
        return (rows, total)
    }

    /// What became of a requeue.
    enum Requeue: Sendable {
        case requeued(OutboxRow)
        /// It is neither FAILED nor DEAD.
        case notAllowed(OutboxStatus)
        case unknown
    }

    /// Makes a FAILED or DEAD message NEW again. Its count of attempts stays: what it carried may be done already.
    func requeue(id: Int64) async throws(PostgresError) -> Requeue {
        let rows = try await self.pool.query(
            """
            with b as (
              update outbox set status = 'NEW', due_at = null, error = null where id = $1 and status in ('FAILED', 'DEAD') returning *
            )
            select \(OutboxRow.columns), pg_notify('\(OutboxChannel.name)', '')::text from b
            """,
            [.int(id)]
        )
        if let row = rows.first { return .requeued(try OutboxRow(row: row)) }
        guard let row = try await self.pool.query("select status from outbox where id = $1", [.int(id)]).first else { return .unknown }
        guard let status = OutboxStatus(rawValue: try row.text(0)) else {
            throw PostgresError(code: .decoding, message: "no status of a message")
        }
        return .notAllowed(status)
    }

    /// Hands the orders of commands to recovery that were sent longer ago than `age` and have no result yet; each command once.
    /// - Returns: commands looked at and orders found
    func collectUnanswered(age: Duration, limit: Int) async throws(PostgresError) -> (messages: Int, orders: Int) {
        let row = try await self.pool.query(
            """
            with stale as (
              select id, order_ids from outbox
              where status = 'SENT' and checked_at is null and product_id is not null and sent_at <= now() - $1 * interval '1 microsecond'
              order by sent_at limit $2 for update skip locked
            ), late as (
              insert into saga_work (order_id, due_at, attempts)
              select o.id, now(), 2 from stale s, unnest(s.order_ids) as u(id) join orders o on o.id = u.id where o.status = 'PENDING'
              on conflict do nothing returning 1
            ), looked as (
              update outbox b set checked_at = now() from stale s where b.id = s.id returning 1
            )
            select (select count(*) from looked), (select count(*) from late)
            """,
            [.int(age.microseconds), .int(Int64(limit))]
        ).one()
        return (Int(try row.int(0)), Int(try row.int(1)))
    }

    /// Deletes messages sent longer ago than `age`, at most so many; of commands only those looked at.
    /// - Returns: deleted
    func prune(age: Duration, limit: Int) async throws(PostgresError) -> Int {
        let row = try await self.pool.query(
            """
            with old as (
              select id from outbox
              where status = 'SENT' and sent_at <= now() - $1 * interval '1 microsecond' and (checked_at is not null or product_id is null)
              order by sent_at limit $2 for update skip locked
            ), gone as (delete from outbox b using old where b.id = old.id returning 1)
            select count(*) from gone
            """,
            [.int(age.microseconds), .int(Int64(limit))]
        ).one()
        return Int(try row.int(0))
    }
}
