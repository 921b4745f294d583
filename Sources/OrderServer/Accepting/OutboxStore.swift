import APIErrors
import PostgresClient
import ServerKit

/// The outbox for operators and for recovery; the writers and the relay have statements of their own.
struct OutboxStore: Sendable {
    let pool: PostgresPool
    /// For lists, whose reads may be long: nothing else waits behind them.
    let lists: PostgresPool
    /// Rows that one statement of a list walks at most.
    let listBound: Int64

    /// - Parameter lists: `pool` where nobody else uses it
    init(pool: PostgresPool, lists: PostgresPool? = nil, listBound: Int64 = 100_000) {
        self.pool = pool
        self.lists = lists ?? pool
        self.listBound = listBound
    }

    /// Messages, newest id first.
    func rows(status: OutboxStatus?, _ listing: Listing) async throws(PostgresError) -> (rows: [OutboxRow], page: KeyedList.Page) {
        var list = KeyedList(of: "outbox", alias: "b", newestFirst: true, bound: self.listBound)
        switch status {
        // Written out: the index of the dead is found by the word.
        case .dead: list.enter("b.status = 'DEAD'")
        case .some(let status): list.filter(.text(status.rawValue)) { "b.status = \($0)" }
        case nil: break
        }
        let page = try await list.page(
            after: listing.after,
            offset: listing.paging.offset,
            size: listing.paging.size,
            columns: OutboxRow.columns,
            of: self.lists
        )
        var rows: [OutboxRow] = []
        for row in page.rows { rows.append(try OutboxRow(row: row, from: 1)) }
        return (rows, page)
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
        return .notAllowed(try row.decode(0))
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
        return (try row.decode(0, as: Int.self), try row.decode(1, as: Int.self))
    }

    /// Takes commands off the outbox whose orders were made longer ago than `age` and that no broker has taken yet, and hands their orders to recovery.
    ///
    /// Their lanes are locked, as by a relay: what is being published is left alone. Whatever a broker may have got of them in earlier attempts is a repeat then, as is
    /// the call by recovery. Lanes that do not come free within half a second are left to the next round: their relay is at work.
    /// - Returns: commands taken off and orders found
    func collectOverdue(age: Duration, limit: Int) async throws(PostgresError) -> (messages: Int, orders: Int) {
        let age = PostgresValue.int(age.microseconds)
        guard try await self.pool.query("select exists (\(OutboxStore.overdue))", [age]).one().decode(0, as: Bool.self) else {
            return (0, 0)
        }
        do {
            return try await self.pool.transaction { transaction in
                try transaction.execute(script: "set local lock_timeout = '500ms'")
                let lanes = try transaction.query(
                    """
                    select coalesce(array_agg(lane::bigint), '{}')
                    from (select lane from outbox_lanes where lane in (\(OutboxStore.overdue)) order by lane for update) as l
                    """,
                    [age]
                ).one().decode(0, as: [Int64].self)
                // A statement of its own: what the lanes' last holder marked is seen.
                let row = try transaction.query(
                    """
                    with overdue as (
                      select o.id, o.order_ids from outbox o where o.id in (
                        select w.id from outbox w
                        where w.status in ('NEW', 'FAILED') and w.lane / \(OutboxSQL.commandLanes) = \(OutboxSQL.Kind.commands.rawValue)
                          and w.lane = any($2::bigint[]) and w.created_at <= now() - $1 * interval '1 microsecond'
                        order by w.id limit $3
                      ) for update
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
            if error.sqlState == "55P03" { return (0, 0) }
            throw error
        } catch {
            throw PostgresError(code: .misuse, message: "\(error)")
        }
    }

    /// The lanes of such commands. Bound: what waits, as for the relay's count.
    private static let overdue = """
        select o.lane from outbox o
        where o.status in ('NEW', 'FAILED') and \(OutboxSQL.Kind.commands.condition) and o.created_at <= now() - $1 * interval '1 microsecond'
        """

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
        return try row.decode(0, as: Int.self)
    }
}
