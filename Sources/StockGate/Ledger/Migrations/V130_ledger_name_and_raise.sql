-- Redis may be ahead of the ledger: the database was restored from a backup, or a replica took over that lacked commits. And it may hold what
-- another ledger installed. Servers of the version before call neither function.

-- Raises the fences of these products above what Redis holds for each (p_above), in one step. Returns each with stock and status as of this statement.
-- Rows that somebody else has locked are left out, and so are products that do not exist. A fence that no ledger can have reached by itself is
-- somebody's writing in Redis, and nothing to be raised above: 2^51 raises are seventy thousand a second for a thousand years.
create function stock_raise(p_product bigint[], p_above bigint[])
returns table (product_id bigint, fence bigint, stock bigint, is_on_sale boolean)
language plpgsql as $$
declare
  free bigint[];
begin
  free := array(
    select s.product_id from product_stock s where s.product_id = any(p_product) order by s.product_id for update skip locked
  );
  return query
    update product_stock s set fence = greatest(s.fence, a.above) + 1
    from (
      select q.product_id, max(case when q.above <= 2251799813685248 then q.above else 0 end) as above
      from unnest(p_product, p_above) as q(product_id, above) group by q.product_id
    ) a
    where s.product_id = a.product_id and s.product_id = any(free)
    returning s.product_id, s.fence, s.stock, s.is_on_sale;
end
$$;

-- What tells this ledger from every other one: the PostgreSQL cluster, the database, and the schema. A backup that is restored in its place has the same name.
-- Empty where the role may not ask for the cluster's identifier: such a ledger is not told from others.
create function stock_ledger_name() returns text
language plpgsql stable as $$
begin
  return (select system_identifier from pg_control_system())::text || '/' || current_database() || '/'
    || (select c.relnamespace::regnamespace from pg_class c where c.oid = 'product_stock'::regclass)::text;
exception when insufficient_privilege then
  return '';
end
$$;
