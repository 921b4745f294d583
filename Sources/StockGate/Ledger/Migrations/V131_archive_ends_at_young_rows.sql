-- Archiving ends where a product's rows begin to be young.
--
-- stock_archive walked all rows of the product to find as many old ones as it may move: with ten million young rows behind a few old ones, each call took 5 s. Ids are
-- drawn under the lock of the product's row, and created_at is when the row's transaction began, so the order of ids is that of times, but for as long as
-- transactions wait for the lock. So the walk in the order of ids ends at the first row that is younger than the time by more than an hour.
-- A row that was brought back (fence -1) has the id of then and the time of its return: it ends no walk.

-- Archives at most p_rows rows of a product, the oldest first, that are older than p_before and within its kept sums (an audit brings those forward).
-- Returns how many. A repeated key is compared with its reservation in Redis only while it may be pending there, so rows of the last day are never archived.
create or replace function stock_archive(p_product bigint, p_before timestamptz, p_rows bigint) returns bigint
language plpgsql
set enable_seqscan = off set enable_sort = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
  before constant timestamptz := least(p_before, now() - interval '1 day');
  kept_to bigint;
  walked record;
  old bigint[] := '{}';
  month timestamptz;
  months timestamptz[] := '{}';
  moved bigint;
begin
  select t.up_to_id into kept_to from stock_ledger_totals t where t.product_id = p_product;
  if not found then return 0; end if;
  for walked in
    select r.id, r.fence, r.created_at from stock_ledger r where r.product_id = p_product and r.id <= kept_to order by r.id
  loop
    exit when cardinality(old) >= p_rows;
    if walked.created_at < before then
      old := old || walked.id;
      month := date_trunc('month', walked.created_at at time zone 'UTC') at time zone 'UTC';
      if month <> all(months) then months := months || month; end if;
    else
      exit when walked.fence >= 0 and walked.created_at >= before + interval '1 hour';
    end if;
  end loop;
  foreach month in array months loop
    perform stock_archive_month(month);
  end loop;
  with gone as (
    delete from stock_ledger l where l.product_id = p_product and l.id = any(old) returning l.*
  ), keys as (
    insert into stock_archived_keys (request_id, id, product_id, direction, quantity, reason, order_id, remaining)
    select g.request_id, g.id, g.product_id, g.direction, g.quantity, g.reason, g.order_id, g.remaining from gone g
  ), whole as (
    insert into stock_ledger_archive (id, product_id, request_id, direction, quantity, reason, order_id, fence, token, remaining, created_at)
    select g.id, g.product_id, g.request_id, g.direction, g.quantity, g.reason, g.order_id, g.fence, g.token, g.remaining, g.created_at
    from gone g where g.fence >= 0 -- a row that was brought back stands there already
  )
  select count(*) into moved from gone;
  return moved;
end
$$;
