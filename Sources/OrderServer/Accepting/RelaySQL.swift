/// The relay's statements. Those that mark rows take a table of rows that are free and a condition on it, for the case of locked rows: see
/// `OutboxRelay.marked`.
enum RelaySQL {
    static let lanes = """
        select coalesce(array_agg(lane::bigint), '{}') from (select lane from outbox_lanes where lane between $1 and $2 order by lane for update skip locked) as l
        """

    /// Has this statement's commit wait for the synchronous standby, if there is one, although the session does not wait for its commits. The standby has then
    /// the rows that were read as well: a row that only the primary has may be lost, and its message must not be published.
    private static let atStandby =
        "case when current_setting('synchronous_standby_names') <> '' then set_config('synchronous_commit', 'on', true) end"

    /// Takes rows. It must be a separate statement after the lanes are locked, so that it sees what the lanes' last holder has marked. It also raises the
    /// counts of attempts, which a successor of this process will see.
    static func take(_ kind: OutboxSQL.Kind, locking: String = "") -> String {
        """
        with due as materialized (
          select o.id
          from outbox o
          where o.status in ('NEW', 'FAILED') and \(kind.condition) and o.lane = any($1::bigint[]) and (o.status = 'NEW' or o.due_at <= now())
            and not exists (
              select from outbox f where f.status = 'FAILED' and f.product_id = o.product_id and f.id < o.id and f.due_at > now()
            )
          order by o.id limit $2 \(locking)
        ), taken as (
          update outbox o set attempts = o.attempts + 1 from due where o.id = due.id and o.status in ('NEW', 'FAILED')
          returning o.id, o.topic, o.product_id, o.order_ids, o.payload, o.traceparent, o.attempts, o.error, o.moment, o.versions
        )
        select id, topic, product_id, case when product_id is null then 0 else cardinality(order_ids) end::bigint, payload, traceparent, attempts - 1, error,
          moment, case when moment is not null then order_ids end, versions,
          \(atStandby)
        from taken order by id
        """
    }

    static func sent(_ free: String, _ condition: String) -> String {
        """
        with \(free.isEmpty ? "" : free + ", ")sent as (
          update outbox o set status = 'SENT', sent_at = clock_timestamp(), due_at = null, error = null
          where o.id = any($1) and o.status in ('NEW', 'FAILED')\(condition) returning o.sent_at - o.created_at as delay, o.product_id is null as is_event
        )
        select coalesce(array_agg((extract(epoch from delay) * 1000000)::bigint), '{}'), count(*) filter (where is_event) from sent
        """
    }

    static func failed(_ free: String, _ condition: String) -> String {
        """
        \(free.isEmpty ? "" : "with " + free)
        update outbox o set status = 'FAILED', due_at = now() + t.w * interval '1 microsecond', error = t.e
        from unnest($1::bigint[], $2::bigint[], $3::text[]) as t(i, w, e)
        where o.id = t.i and o.status in ('NEW', 'FAILED')\(condition)
        """
    }

    static func untouched(_ free: String, _ condition: String) -> String {
        """
        \(free.isEmpty ? "" : "with " + free)
        update outbox o set attempts = greatest(attempts - 1, 0) where o.id = any($1) and o.status in ('NEW', 'FAILED')\(condition)
        """
    }

    /// Gives messages up. Recovery settles their orders, and its calls are marked as possible repeats.
    static func dead(_ free: String, _ condition: String) -> String {
        """
        with \(free.isEmpty ? "" : free + ", ")dead as (
          update outbox o set status = 'DEAD', due_at = null, error = t.e from unnest($1::bigint[], $2::text[]) as t(i, e)
          where o.id = t.i and o.status in ('NEW', 'FAILED')\(condition) returning o.product_id, o.order_ids
        ), work as (
          insert into saga_work (order_id, due_at, attempts)
          select o.id, now(), 2 from dead d, unnest(d.order_ids) as u(id) join orders o on o.id = u.id
          where d.product_id is not null and o.status = 'PENDING'
          on conflict do nothing returning 1
        )
        select (select count(*) from work), (select count(*) from dead where product_id is null)
        """
    }

    static let count = """
        select coalesce(sum(cardinality(order_ids)) filter (where product_id is not null), 0)::bigint,
          count(*) filter (where product_id is null), count(*) filter (where status = 'NEW'), count(*) filter (where status = 'FAILED'),
          coalesce(extract(epoch from now() - min(created_at)) * 1000000, 0)::bigint, (select count(*) from outbox where status = 'DEAD')
        from outbox where status in ('NEW', 'FAILED')
        """
}
