import APIErrors
import PostgresClient
import ServerKit

/// The outbox for operators and for recovery. The writers and the relay have their own statements.
struct OutboxStore: Sendable {
    let pool: PostgresPool
    /// Connections for lists, whose reads may be long. Nothing else waits for these connections.
    let lists: PostgresPool
    /// How many rows one statement of a list walks at most.
    let listBound: Int64

    /// - Parameter lists: nil: `pool`, which is right if nobody else uses it
    init(pool: PostgresPool, lists: PostgresPool? = nil, listBound: Int64 = 100_000) {
        self.pool = pool
        self.lists = lists ?? pool
        self.listBound = listBound
    }

    /// Messages, newest id first.
    func rows(status: OutboxStatus?, _ listing: Listing) async throws(PostgresError) -> (rows: [OutboxRow], page: KeyedList.Page) {
        var list = KeyedList(of: "outbox", alias: "b", newestFirst: true, bound: listBound)
        switch status {
        // The condition is written as text: the index of dead rows has this condition.
        case .dead: list.enter("b.status = 'DEAD'")
        case .some(let status): list.filter(.text(status.rawValue)) { "b.status = \($0)" }
        case nil: break
        }
        return try await list.page(listing, OutboxRow.columns, of: lists) { row throws(PostgresError) in try OutboxRow(row: row, from: 1) }
    }

    enum Requeue: Sendable {
        case requeued(OutboxRow)
        /// The message is neither FAILED nor DEAD.
        case notAllowed(OutboxStatus)
        case unknown
    }

    /// Makes a FAILED or DEAD message NEW again. Its count of attempts stays, because what the message carries may have been done already.
    func requeue(id: Int64) async throws(PostgresError) -> Requeue {
        let rows = try await pool.query(
            """
            with b as (
              update outbox set status = 'NEW', due_at = null, error = null where id = $1 and status in ('FAILED', 'DEAD') returning *
            )
            select \(OutboxRow.columns), pg_notify('\(OutboxChannel.name)', '')::text from b
            """,
            [.int(id)]
        )
        if let row = rows.first { return .requeued(try OutboxRow(row: row)) }
        guard let row = try await pool.query("select status from outbox where id = $1", [.int(id)]).first else { return .unknown }
        return .notAllowed(try row.decode(0))
    }

    /// Finds commands that were sent longer ago than `age` and have orders without a result, and hands those orders to recovery. Each command is looked at
    /// once.
    /// - Returns: the numbers of commands looked at and of orders found
    func collectUnanswered(age: Duration, limit: Int) async throws(PostgresError) -> (messages: Int, orders: Int) {
        let row = try await pool.query(
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
        return (try row.decode(0, as: Int.self), try row.decode(1, as: Int.self))
    }

    /// Takes commands off the outbox that no broker has taken yet and whose orders were made longer ago than `age`, and hands their orders to recovery.
    ///
    /// The commands' lanes are locked, as a relay does, so that a command which is being published is left alone. If a broker has got a command in an earlier
    /// attempt, that command and recovery's call are repeats of each other. Lanes and rows that are free come first, so that one which somebody holds keeps no
    /// other from its recovery. Then those that are left are waited for, half a second at most: a relay that works holds its lanes most of the time.
    /// - Returns: the numbers of commands taken off and of orders found
    func collectOverdue(age: Duration, limit: Int) async throws(PostgresError) -> (messages: Int, orders: Int) {
        let microseconds = PostgresValue.int(age.microseconds)
        func isAnyOverdue() async throws(PostgresError) -> Bool {
            try await pool.query("select exists (\(OutboxStore.overdue))", [microseconds]).one().decode(0, as: Bool.self)
        }
        guard try await isAnyOverdue() else { return (0, 0) }
        let free = try await collectOverdue(microseconds, limit, locking: "for update skip locked")
        guard free.messages < limit, try await isAnyOverdue() else { return free }
        do throws(PostgresError) {
            let rest = try await collectOverdue(microseconds, limit - free.messages, locking: "for update")
            return (free.messages + rest.messages, free.orders + rest.orders)
        } catch {
            if error.sqlState == "55P03" { return free }
            throw error
        }
    }

    private func collectOverdue(
        _ age: PostgresValue,
        _ limit: Int,
        locking: String
    ) async throws(PostgresError) -> (messages: Int, orders: Int) {
        do {
            return try await pool.transaction { transaction in
                try transaction.execute(script: "set local lock_timeout = '500ms'")
                let lanes = try transaction.query(
                    """
                    select coalesce(array_agg(lane::bigint), '{}')
                    from (select lane from outbox_lanes where lane in (\(OutboxStore.overdue)) order by lane \(locking)) as l
                    """,
                    [age]
                ).one().decode(0, as: [Int64].self)
                // This is a separate statement, so that it sees what the last holder of the lanes has marked.
                let row = try transaction.query(
                    """
                    with overdue as (
                      select o.id, o.order_ids from outbox o
                      where o.status in ('NEW', 'FAILED') and \(OutboxSQL.Kind.commands.condition)
                        and o.lane = any($2::bigint[]) and o.created_at <= now() - $1 * interval '1 microsecond'
                      order by o.id limit $3 \(locking)
                    ), late as (
                      insert into saga_work (order_id, due_at, attempts)
                      select o.id, now(), 2 from overdue d, unnest(d.order_ids) as u(id) join orders o on o.id = u.id where o.status = 'PENDING'
                      on conflict do nothing returning 1
                    ), gone as (
                      delete from outbox b using overdue d where b.id = d.id returning 1
                    )
                    select (select count(*) from gone), (select count(*) from late)
                    """,
                    [age, .ints(lanes), .int(Int64(limit))]
                ).one()
                return (try row.decode(0, as: Int.self), try row.decode(1, as: Int.self))
            }
        } catch let error as PostgresError {
            throw error
        } catch {
            throw PostgresError(code: .misuse, message: "\(error)")
        }
    }

    /// The lanes of overdue commands. Bound: the rows that wait, as for the relay's count.
    private static let overdue = """
        select o.lane from outbox o
        where o.status in ('NEW', 'FAILED') and \(OutboxSQL.Kind.commands.condition) and o.created_at <= now() - $1 * interval '1 microsecond'
        """

    /// Deletes messages that were sent longer ago than `age`, at most `limit`. Of commands, only those that were looked at for missing results.
    /// - Returns: how many were deleted
    func prune(age: Duration, limit: Int) async throws(PostgresError) -> Int {
        let row = try await pool.query(
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
        return try row.decode(0, as: Int.self)
    }
}
