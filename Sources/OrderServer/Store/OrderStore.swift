import APIErrors
import PostgresClient
import ServerKit
import ServerMetrics
import StockContract

/// Orders in PostgreSQL, for all statements that are not grouped.
struct OrderStore: Sendable {
    let pool: PostgresPool
    /// How long recovery leaves an order to those who work on it.
    let recoveryAge: Duration
    /// Nil without a broker.
    var outbox: OutboxWriting?
    /// Connections for lists, whose reads may be long. Nothing else waits for these connections.
    let lists: PostgresPool
    /// How many rows one statement of a list walks at most.
    let listBound: Int64

    /// - Parameter lists: nil: `pool`, which is right if nobody else uses it
    init(
        pool: PostgresPool,
        recoveryAge: Duration,
        outbox: OutboxWriting? = nil,
        lists: PostgresPool? = nil,
        listBound: Int64 = 100_000
    ) {
        self.pool = pool
        self.recoveryAge = recoveryAge
        self.outbox = outbox
        self.lists = lists ?? pool
        self.listBound = listBound
    }

    /// The migrations of the order server's database.
    static var migrations: [Migration] {
        [
            Migration(version: 1, name: "orders", sql: String(decoding: PackageResources.V001_orders_sql, as: UTF8.self)),
            Migration(version: 2, name: "outbox", sql: String(decoding: PackageResources.V002_outbox_sql, as: UTF8.self)),
            Migration(version: 3, name: "outbox_written", sql: String(decoding: PackageResources.V003_outbox_written_sql, as: UTF8.self)),
            Migration(version: 4, name: "buyer_keys", sql: String(decoding: PackageResources.V004_buyer_keys_sql, as: UTF8.self)),
            Migration(version: 5, name: "outbox_messages", sql: String(decoding: PackageResources.V005_outbox_messages_sql, as: UTF8.self)),
            Migration(version: 10, name: "event_drafts", sql: String(decoding: PackageResources.V010_event_drafts_sql, as: UTF8.self)),
            Migration(version: 30, name: "server_leases", sql: String(decoding: PackageResources.V030_server_leases_sql, as: UTF8.self)),
        ]
    }

    // MARK: Reading

    func order(id: Int64) async throws(PostgresError) -> Order? {
        let sql = "select \(Order.columns), \(PostgresSession.replicatedServer) from orders o where o.id = $1"
        guard let row = try await pool.query(sql, [.int(id)]).first else { return nil }
        return try await told(try Order(row: row), at: try row.decode(Order.columnCount))
    }

    /// An order, and its history as a JSON array.
    func orderWithSteps(id: Int64) async throws(PostgresError) -> (order: Order, steps: String)? {
        let sql = "select \(Order.columns), o.steps, \(PostgresSession.replicatedServer) from orders o where o.id = $1"
        guard let row = try await pool.query(sql, [.int(id)]).first else { return nil }
        let steps = try row.decode(Order.columnCount, as: String.self)
        return (try await told(try Order(row: row), at: try row.decode(Order.columnCount + 1)), "[" + steps + "]")
    }

    /// The order, when its final state cannot be lost any more by a failover to the synchronous standby. A PENDING order is no final answer, and is told at once.
    /// - Parameter server: as `PostgresSession.replicatedServer` named it
    func told(_ order: Order, at server: Int64?) async throws(PostgresError) -> Order {
        if order.status != .pending { try await pool.awaitReplication(at: server) }
        return order
    }

    /// Orders, newest id first.
    ///
    /// There is no index on the status, because each change of it would have to write every index of the table. So a status is searched row by row, among
    /// `listBound` orders for each page.
    func orders(
        buyer: String?,
        status: OrderStatus?,
        _ listing: Listing
    ) async throws(PostgresError) -> (rows: [Order], page: KeyedList.Page) {
        var list = KeyedList(of: "orders", alias: "o", newestFirst: true, bound: listBound)
        if let buyer { list.enter(.text(buyer)) { "o.buyer_id = \($0)" } }
        if let status { list.filter(.text(status.rawValue)) { "o.status = \($0)" } }
        return try await list.page(listing, Order.columns, of: lists) { row throws(PostgresError) in try Order(row: row, from: 1) }
    }

    // MARK: Cancelling and running again

    /// Marks a CONFIRMED order as being cancelled before its stock is given back, and puts it on recovery's list in case this process dies.
    /// - Returns: the order; nil if it is not CONFIRMED
    func requestCancel(id: Int64, key: String?) async throws(PostgresError) -> Order? {
        let rows = try await pool.query(
            """
            with o as (
              update orders set cancel_requested_at = coalesce(cancel_requested_at, now()), cancel_key = coalesce(cancel_key, $2)
              where id = $1 and status = 'CONFIRMED' returning *
            ), work as (
              insert into saga_work (order_id, due_at)
              select id, now() + $3 * interval '1 microsecond' from o
              on conflict (order_id) do update set due_at = greatest(saga_work.due_at, excluded.due_at), attempts = saga_work.attempts + 1
            )
            select \(Order.columns) from o
            """,
            [.int(id), .optionalText(key), .int(recoveryAge.microseconds)]
        )
        return try rows.first.map { (row) throws(PostgresError) in try Order(row: row) }
    }

    /// Notes that the product server has refused for good to take an order's stock back, and what was tried.
    /// - Parameter refusal: key and reason
    /// - Returns: whether this is news, that is, whether the note before was another one
    func noteUndoRefused(id: Int64, refusal: String, records: [StepRecord]) async throws(PostgresError) -> Bool {
        let rows = try await pool.query(
            """
            update orders set undo_refused = $2, steps = case when steps = '' then $3 else concat_ws(',', steps, nullif($3, '')) end
            where id = $1 and undo_refused is distinct from $2 returning id
            """,
            [.int(id), .text(refusal), .text(StepRecord.json(records))]
        )
        return !rows.isEmpty
    }

    /// Removes the mark of a cancellation, because the product server has refused to take the stock back.
    func withdrawCancel(id: Int64) async throws(PostgresError) {
        _ = try await pool.query(
            """
            with o as (update orders set cancel_requested_at = null, cancel_key = null where id = $1 and status = 'CONFIRMED')
            delete from saga_work where order_id = $1
            """,
            [.int(id)]
        )
    }

    /// Makes a FAILED order PENDING again, under the keys of its next run. The event for it is `order.created` again, with the next version.
    /// - Returns: the order; nil if it is not FAILED, or if an earlier run is still being settled
    func beginRetry(id: Int64) async throws(PostgresError) -> Order? {
        guard let outbox else { return try await self.beginRetry(id: id, events: ([], [])) }
        guard outbox.backlog.reserve(events: 1) else {
            let order = try await self.beginRetry(id: id, events: ([], []))
            if order != nil { outbox.droppedEvents.add() }
            return order
        }
        do throws(PostgresError) {
            let event = try await pool.query("select nextval('outbox_ids')").one().decode(0, as: Int64.self)
            let order = try await self.beginRetry(id: id, events: ([event], [OrderStatus.pending.rawValue]))
            outbox.wrote(commands: 0, events: order == nil ? 0 : 1, room: 1)
            return order
        } catch {
            outbox.wroteNone(room: 1)
            throw error
        }
    }

    private func beginRetry(id: Int64, events: (ids: [Int64], statuses: [String])) async throws(PostgresError) -> Order? {
        let rows = try await pool.query(
            """
            with \(OutboxSQL.clock), o as (
              update orders set status = 'PENDING', run = run + 1, version = version + 1, fail_reason = null, updated_at = now()
              where id = $1 and status = 'FAILED' and not exists (select from saga_work w where w.order_id = $1) returning *
            ), work as (
              insert into saga_work (order_id, due_at)
              select id, now() + $2 * interval '1 microsecond' from o
              on conflict (order_id) do update set due_at = excluded.due_at, attempts = saga_work.attempts + 1
            ), events as (
              \(OutboxSQL.events(rows: "o", first: 3, created: OutboxSQL.createdBefore))
            )
            select \(Order.columns) from o
            """,
            [.int(id), .int(recoveryAge.microseconds), .ints(events.ids), .texts(events.statuses)]
        )
        return try rows.first.map { (row) throws(PostgresError) in try Order(row: row) }
    }

    // MARK: Keys that are another order's

    /// SQL for the run in which an order `o` goes on when its key belongs to another order.
    static let otherRun = "greatest(o.run + 1, extract(epoch from clock_timestamp())::bigint)"

    /// Lets a PENDING order continue under another key than that of `run`.
    /// - Parameter age: an order whose last change is older is left alone, because somebody else may have begun to settle it; nil: no limit
    /// - Returns: the order as it continues; nil if it is not PENDING in that run, or too old
    func takeAnotherKey(id: Int64, run: Int64, age: Duration?, records: [StepRecord]) async throws(PostgresError) -> Order? {
        let rows = try await pool.query(
            """
            update orders o set run = \(OrderStore.otherRun), updated_at = now(),
              steps = case when o.steps = '' then $4 else concat_ws(',', o.steps, nullif($4, '')) end
            where o.id = $1 and o.run = $2 and o.status = 'PENDING' and ($3::bigint is null or o.updated_at > now() - $3 * interval '1 microsecond')
            returning \(Order.columns)
            """,
            [.int(id), .int(run), .optionalInt(age?.microseconds), .text(StepRecord.json(records))]
        )
        return try rows.first.map { (row) throws(PostgresError) in try Order(row: row) }
    }

    // MARK: Recovery

    /// One order for recovery, and the number of its next attempt.
    struct Work: Sendable {
        var order: Order
        var attempt: Int64
    }

    /// Leaves an order to recovery, due after `delay`.
    func leaveToRecovery(id: Int64, after delay: Duration) async throws(PostgresError) {
        _ = try await pool.query(
            """
            insert into saga_work (order_id, due_at) values ($1, now() + $2 * interval '1 microsecond')
            on conflict (order_id) do update set attempts = saga_work.attempts + 1
            """,
            [.int(id), .int(delay.microseconds)]
        )
    }

    /// Puts every PENDING order older than the bound on recovery's list. Each period of time is searched once. Orders that go over the broker are left to their
    /// messages.
    ///
    /// The mark of what was searched stays at least 6 seconds behind the clock, because an insert takes its time when it begins, and may run for
    /// `statement_timeout`, 4 seconds. A commit can take longer than that, where a disk or a standby hangs; so the mark also stays behind the oldest open
    /// transaction of any order server, at most `longestCommit`. A server that finds the mark locked leaves the period to the server that has locked it. A mark
    /// that is not behind the clock, which was set back since, says nothing, and a lost one is made anew: everything is searched again then.
    /// - Returns: how many orders were found
    func collect() async throws(PostgresError) -> Int {
        do {
            return try await pool.transaction(timeout: .seconds(65)) { transaction in
                // The first period of all is as long as the table.
                try transaction.execute(script: "set local statement_timeout = '60s'")
                // A statement of its own, before the search takes its snapshot: what is not seen here has ended by then, and is found.
                let oldest = try transaction.query(OrderStore.oldestSQL, []).one().decode(0, as: Int64?.self)
                let least = max(recoveryAge, .seconds(6))
                let behind = max(least, min(.microseconds((oldest ?? 0) + 1), OrderStore.longestCommit))
                let parameters: [PostgresValue] = [.int(recoveryAge.microseconds), .int(behind.microseconds)]
                return try transaction.query(OrderStore.collectSQL, parameters, timeout: .seconds(65)).one().decode(0, as: Int.self)
            }
        } catch let error as PostgresError {
            throw error
        } catch {
            throw PostgresError(code: .misuse, message: "\(error)")
        }
    }

    /// How long a commit may take before recovery searches on without it. With a longer bound, a transaction that was forgotten would have each search go
    /// through more and more orders.
    private static let longestCommit = Duration.seconds(60)

    /// How long the oldest open transaction of the order servers has been open, in microseconds. They are told by the name of their sessions, which begins
    /// with that of this one, so that an analyst's is not among them.
    private static let oldestSQL = """
        select (extract(epoch from now() - min(xact_start)) * 1000000)::bigint from pg_stat_activity
        where datname = current_database() and starts_with(application_name, current_setting('application_name')) and pid <> pg_backend_pid()
        """

    private static let collectSQL = """
        with mark as (
          select case when collected_until > now() - interval '4 seconds' then '-infinity' else collected_until end as collected_until
          from recovery_mark for update skip locked
        ), anew as (
          insert into recovery_mark values (true, '-infinity') on conflict do nothing
        ), late as (
          insert into saga_work (order_id, due_at)
          select o.id, now() from orders o, mark
          where o.created_at > mark.collected_until and o.created_at <= now() - $1 * interval '1 microsecond' and o.status = 'PENDING'
            and o.message_id is null
          on conflict do nothing returning 1
        ), moved as (
          update recovery_mark r set collected_until = greatest(mark.collected_until, now() - $2 * interval '1 microsecond') from mark
        )
        select count(*) from late
        """

    /// Takes at most `limit` due orders for `lease`. No other server takes them before that is over.
    /// - Parameter products: takes orders of these products alone; nil: of all
    func claim(limit: Int, lease: Duration, products: [ClosedRange<Int64>]? = nil) async throws(PostgresError) -> [Work] {
        let chosen = """
            join orders o on o.id = s.order_id
              and exists (select from unnest($3::bigint[], $4::bigint[]) as p(low, high) where o.product_id between p.low and p.high)
            """
        let rows = try await pool.query(
            """
            with due as (
              select s.order_id from saga_work s \(products == nil ? "" : chosen)
              where s.due_at <= now() order by s.due_at limit $1 for update of s skip locked
            ), claimed as (
              update saga_work w set due_at = now() + $2 * interval '1 microsecond', attempts = w.attempts + 1
              from due where w.order_id = due.order_id
              returning w.order_id, w.attempts
            )
            select c.attempts, \(Order.columns) from claimed c join orders o on o.id = c.order_id
            """,
            [.int(Int64(limit)), .int(lease.microseconds)]
                + (products.map { [.ints($0.map(\.lowerBound)), .ints($0.map(\.upperBound))] } ?? [])
        )
        var work: [Work] = []
        for row in rows { work.append(Work(order: try Order(row: row, from: 1), attempt: try row.decode(0))) }
        return work
    }

    /// Makes an order that could not be settled due again after `delay`, unless its entry was changed since `attempt`.
    func postpone(id: Int64, attempt: Int64, delay: Duration) async throws(PostgresError) {
        _ = try await pool.query(
            "update saga_work set due_at = now() + $3 * interval '1 microsecond' where order_id = $1 and attempts = $2",
            [.int(id), .int(attempt), .int(delay.microseconds)]
        )
    }

    /// Takes a settled order off the list, unless somebody has put it there again since `attempt`.
    func drop(id: Int64, attempt: Int64?) async throws(PostgresError) {
        if let attempt {
            _ = try await pool.query("delete from saga_work where order_id = $1 and attempts = $2", [.int(id), .int(attempt)])
        } else {
            _ = try await pool.query("delete from saga_work where order_id = $1", [.int(id)])
        }
    }

    /// The number of orders on recovery's list.
    func backlog() async throws(PostgresError) -> Int {
        try await pool.query("select count(*) from saga_work").one().decode(0, as: Int.self)
    }

    /// Whether PostgreSQL answers. To show a replica, nothing more is needed.
    func isAnswering() async -> Bool {
        do {
            _ = try await pool.query("select 1", timeout: .seconds(1))
            return true
        } catch {
            return false
        }
    }
}

extension Duration {
    var microseconds: Int64 {
        let (seconds, attoseconds) = components
        return seconds * 1_000_000 + attoseconds / 1_000_000_000_000
    }
}
