-- Old rows can leave the ledger. What their keys decided stays, and so do their sums.
--
-- A row that is archived goes to stock_ledger_archive, whole, into the partition of its month: a month can be detached, dumped and dropped at once, for nothing
-- depends on it. What its key decided goes to stock_archived_keys and stays for ever. A request under such a key brings the row back into the ledger first, with
-- its id, and is then decided by the ledger alone, as ever: replays, cancellations and keys of others need no rules of their own here. Sums need none either: only
-- rows within the kept sums are archived, and those stay as they are.
--
-- The ledger itself is not partitioned: its keys are unique over all rows, and PostgreSQL keeps an index unique over partitions only if it has the partition's
-- column, which a key does not have.
--
-- A lookup asks the ledger first and the archive second, in statements of their own: a row on its way is found in one of them. Whoever found neither and then
-- writes, looks into the archive once more before. Locks are taken in this order: products by id, then archived keys by key.
-- While nothing is archived, all that costs a look at an empty index for each batch.

create table stock_archived_keys (
  request_id text collate "C" primary key,
  id bigint not null,
  product_id bigint not null,
  direction text collate "C" not null,
  quantity bigint not null,
  reason text collate "C" not null,
  order_id bigint not null,
  remaining bigint not null
);

create table stock_ledger_archive (
  id bigint not null,
  product_id bigint not null,
  request_id text collate "C" not null,
  direction text collate "C" not null,
  quantity bigint not null,
  reason text collate "C" not null,
  order_id bigint not null,
  fence bigint not null,
  token bigint not null,
  remaining bigint not null,
  created_at timestamptz not null
) partition by range (created_at);

-- Makes the partition of the month that a time is in; nothing if it is there. Months are UTC's.
create function stock_archive_month(p_time timestamptz) returns text language plpgsql as $$
declare
  month constant timestamp := date_trunc('month', p_time at time zone 'UTC');
  name constant text := 'stock_ledger_archive_' || to_char(month, 'YYYY_MM');
begin
  if to_regclass(name) is null then
    execute format('create table %I partition of stock_ledger_archive for values from (%L) to (%L)', name,
      month at time zone 'UTC', (month + interval '1 month') at time zone 'UTC');
  end if;
  return name;
end
$$;

-- Archives at most p_rows rows of a product, the oldest first, that are older than p_before and within its kept sums (an audit brings those forward).
-- Returns how many. A repeated key is compared with its reservation in Redis only while it may be pending there, so rows of the last day are never archived.
create function stock_archive(p_product bigint, p_before timestamptz, p_rows bigint) returns bigint
language plpgsql
set enable_seqscan = off set enable_sort = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
  before constant timestamptz := least(p_before, now() - interval '1 day');
  kept_to bigint;
  month timestamptz;
  moved bigint;
begin
  select t.up_to_id into kept_to from stock_ledger_totals t where t.product_id = p_product;
  if not found then return 0; end if;
  for month in
    select distinct date_trunc('month', l.created_at at time zone 'UTC') at time zone 'UTC'
    from (
      select r.created_at from stock_ledger r where r.product_id = p_product and r.id <= kept_to and r.created_at < before order by r.id limit p_rows
    ) l
  loop
    perform stock_archive_month(month);
  end loop;
  with old as (
    select r.id from stock_ledger r where r.product_id = p_product and r.id <= kept_to and r.created_at < before order by r.id limit p_rows
  ), gone as (
    delete from stock_ledger l using old where l.product_id = p_product and l.id = old.id returning l.*
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

-- Whether any of these keys is archived.
create function stock_is_archived(p_key text[]) returns boolean language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
begin
  return exists (select from stock_archived_keys k) and exists (select from stock_archived_keys k where k.request_id = any(p_key));
end
$$;

-- Brings the rows of these keys back into the ledger. Their fence is -1: no reservation is theirs.
create function stock_unarchive(p_key text[]) returns void language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
begin
  if not exists (select from stock_archived_keys k) then return; end if;
  -- In the order of their keys, so that two that need the same rows wait for each other in one direction.
  perform 1 from stock_archived_keys k where k.request_id = any(p_key) order by k.request_id for update;
  with back as (delete from stock_archived_keys k where k.request_id = any(p_key) returning k.*)
  insert into stock_ledger (id, product_id, request_id, direction, quantity, reason, order_id, fence, token, remaining)
  overriding system value
  select b.id, b.product_id, b.request_id, b.direction, b.quantity, b.reason, b.order_id, -1, 0, b.remaining from back b;
end
$$;

-- One batch of decrements. Element i of every array is request i; no key twice in one call.
--
-- p_flags: 1 a reserve was sent, 2 firm (a repeat, or a retry after an unknown commit).
-- Returns one row a request, in their order: outcome (CommitOutcome), the product's fence as it was locked, whether this statement
-- bumped it, the stock after the (first) decrement, and whether the product is gated.
--
-- The rows are locked first, in id order, and the keys are looked up after that, by later statements: in READ COMMITTED each has a snapshot of
-- its own, newer than the lock. A single WITH … FOR UPDATE takes its snapshot before it has the lock and loses units.
create or replace function stock_commit(
  p_product bigint[], p_key text[], p_quantity bigint[], p_order bigint[], p_fence bigint[], p_token bigint[], p_flags bigint[]
) returns table (outcome bigint, told bigint, bumped boolean, remaining bigint, gated boolean)
language plpgsql
-- The plans of a function are kept, and may have been made while the ledger was empty: keys are always looked up by the index.
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
  n constant int := cardinality(p_key);
  product record;
  request record;
  stock_left bigint;
  bump boolean;
  mine boolean;
  result bigint;
  seen int := 0;
  -- by request
  o_outcome bigint[];
  o_told bigint[];
  o_bumped boolean[];
  o_remaining bigint[];
  o_gated boolean[];
  -- requests that get a ledger row, and which kind
  written int[] := '{}';
  indices int[];
  inserted int;
  total bigint;
  i int;
  -- the setting that remembers where the product's row lies, and the place
  slot text;
  place text;
begin
  -- What nearly every batch of a sale is: one product, new keys, enough stock for all, reserved under the fence of now. Set-based, with the
  -- same outcome as the loop below. FOR UPDATE returns the row as it is once it is locked. A key twice in one call, or one that was committed for
  -- another product since the lookup, violates the unique index (SQLSTATE 23505); each member is tried alone then, as after SG001 below.
  if p_product[1] = all(p_product) then
    slot := 'stockgate.row_' || (p_product[1] & 63);
    place := nullif(current_setting(slot, true), '');
    if place is not null then
      -- A place that is out of date shows no row, or another product's, or the row that has followed it: the product is compared, and the lock is on what is newest.
      select s.*, s.ctid as place into product from product_stock s where s.ctid = place::tid and s.product_id = p_product[1] for update;
    end if;
    if place is null or not found then
      select s.*, s.ctid as place into product from product_stock s where s.product_id = p_product[1] for update;
    end if;
    if found and product.is_on_sale and product.fence = all(p_fence) then
      total := (select sum(q) from unnest(p_quantity) q);
      if product.stock >= total and not exists (select from stock_ledger l where l.request_id = any(p_key))
         and (not exists (select from stock_archived_keys k) or not stock_is_archived(p_key)) then
        -- The row is locked, so it stays where it was found.
        update product_stock s set stock = product.stock - total where s.ctid = product.place and s.product_id = product.product_id
        returning s.ctid::text into strict place;
        perform set_config(slot, place, false);
        return query
          insert into stock_ledger (product_id, request_id, direction, quantity, reason, order_id, fence, token, remaining)
          select product.product_id, q.key, 'OUT', q.quantity, 'ORDER_DECREMENT', q.order_id, product.fence, q.token,
            product.stock - sum(q.quantity) over (order by q.nth)
          from unnest(p_key, p_quantity, p_order, p_token) with ordinality as q(key, quantity, order_id, token, nth)
          order by q.nth
          returning 0::bigint, stock_ledger.fence, false, stock_ledger.remaining, product.is_gated;
        return;
      end if;
    end if;
  else
    perform 1 from product_stock s where s.product_id = any(p_product) order by s.product_id for update;
  end if;

  perform stock_unarchive(p_key);

  o_outcome := array_fill(6::bigint, array[n]); -- product missing, until its row is met
  o_told := array_fill(0::bigint, array[n]);
  o_bumped := array_fill(false, array[n]);
  o_remaining := array_fill(0::bigint, array[n]);
  o_gated := array_fill(false, array[n]);

  for product in select s.* from product_stock s where s.product_id = any(p_product) order by s.product_id loop
    stock_left := product.stock;
    bump := false;
    indices := '{}';
    for request in
      select q.i, q.quantity, q.order_id, q.fence, q.token, q.flags,
             l.direction as l_direction, l.product_id as l_product, l.quantity as l_quantity, l.order_id as l_order,
             l.fence as l_fence, l.token as l_token, l.remaining as l_remaining
      from unnest(p_product, p_key, p_quantity, p_order, p_fence, p_token, p_flags)
           with ordinality as q(product_id, key, quantity, order_id, fence, token, flags, i)
      left join stock_ledger l on l.request_id = q.key
      where q.product_id = product.product_id
      order by q.i
    loop
      i := request.i;
      indices := indices || i;
      o_remaining[i] := stock_left;
      if request.l_direction is not null then
        mine := request.fence > 0 and request.l_fence = request.fence and request.l_token = request.token and request.l_product = product.product_id;
        if request.l_direction <> 'OUT' then
          result := 4; -- closed
        elsif request.l_product <> product.product_id or request.l_quantity <> request.quantity or request.l_order <> request.order_id then
          result := case when mine then 8 else 7 end;
        else
          result := case when mine then 1 else 2 end;
          o_remaining[i] := request.l_remaining;
        end if;
        -- A duplicate of this very reservation, met under another fence: whoever committed it may never have told Redis.
        if mine and request.fence <> product.fence then bump := true; end if;
      elsif not product.is_on_sale then
        result := 5;
        if request.flags & 2 <> 0 then written := written || i; end if; -- the product may be put on sale again; a final no stays one
      elsif stock_left >= request.quantity then
        result := 0;
        stock_left := stock_left - request.quantity;
        o_remaining[i] := stock_left;
        written := written || i;
        if request.fence = 0 then bump := true; end if;
      else
        result := 3;
        -- Redis promised too much, and a twin may have joined.
        if request.fence = product.fence then bump := true; end if;
        if request.flags & 2 <> 0 then written := written || i; end if;
      end if;
      -- Without a reservation in hand, though one may be pending in Redis.
      if request.fence = 0 and request.flags & 1 <> 0 then bump := true; end if;
      o_outcome[i] := result;
      o_told[i] := product.fence;
      o_gated[i] := product.is_gated;
    end loop;
    if bump or stock_left <> product.stock then
      update product_stock s set stock = stock_left, fence = s.fence + bump::int where s.product_id = product.product_id;
    end if;
    if bump then
      foreach i in array indices loop o_bumped[i] := true; end loop;
    end if;
  end loop;

  if cardinality(written) > 0 then
    -- Archived since the row was looked for and not found: the statement is sent again (serialization_failure).
    if stock_is_archived(p_key) then raise exception 'a key of this batch was archived' using errcode = '40001'; end if;
    insert into stock_ledger (product_id, request_id, direction, quantity, reason, order_id, fence, token, remaining)
    select p_product[w], p_key[w],
           case o_outcome[w] when 0 then 'OUT' else 'CLOSED' end,
           p_quantity[w], -- of a closed key: what was asked for, so that an increase can be compared with it
           case o_outcome[w] when 0 then 'ORDER_DECREMENT' else 'REFUSED' end,
           p_order[w], p_fence[w], p_token[w], o_remaining[w]
    from unnest(written) as w
    on conflict (request_id) do nothing;
    get diagnostics inserted = row_count;
    -- A key twice in one call, or a row for another product that was committed since the lookup. Each member is tried alone then.
    if inserted <> cardinality(written) then
      raise exception 'a key of this batch is in use' using errcode = 'SG001';
    end if;
  end if;

  return query select * from unnest(o_outcome, o_told, o_bumped, o_remaining, o_gated);
end
$$;

-- One batch of increases. `INC-x` gives back what `DEC-x` took.
--
-- p_quantity: units as the caller names them; 0: it named none (a server of the version before this), and they are not compared.
-- Returns one row a request: outcome (IncreaseOutcome), the fence as it was locked, whether this statement bumped it, units given back,
-- stock after it, and whether the product is gated.
--
-- The product of the request is locked, then the keys are looked up. The decrease may belong to another product, whose row is not locked: if it is
-- written at the same time, the unique index lets one of the two in, the other statement is rolled back (SG001) and finds the row when it is tried again.
create or replace function stock_increase(p_product bigint[], p_key text[], p_decrease_key text[], p_order bigint[], p_quantity bigint[])
returns table (outcome bigint, told bigint, bumped boolean, quantity bigint, remaining bigint, gated boolean)
language plpgsql
-- The plans of a function are kept, and may have been made while the ledger was empty: keys are always looked up by the index.
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
  n constant int := cardinality(p_key);
  product record;
  request record;
  stock_left bigint;
  bump boolean;
  i int;
  indices int[];
  inserted int;
  o_outcome bigint[] := array_fill(5::bigint, array[n]);
  o_told bigint[] := array_fill(0::bigint, array[n]);
  o_bumped boolean[] := array_fill(false, array[n]);
  o_quantity bigint[] := array_fill(0::bigint, array[n]);
  o_remaining bigint[] := array_fill(0::bigint, array[n]);
  o_gated boolean[] := array_fill(false, array[n]);
  recorded int[] := '{}'; -- requests that get a row of their own
  closing int[] := '{}';  -- requests whose decrease key gets a closing row
begin
  perform 1 from product_stock s where s.product_id = any(p_product) order by s.product_id for update;
  perform stock_unarchive(p_key || p_decrease_key);

  for product in select s.* from product_stock s where s.product_id = any(p_product) order by s.product_id loop
    stock_left := product.stock;
    bump := false;
    indices := '{}';
    for request in
      select q.i, q.order_id, q.quantity,
             own.direction as own_direction, own.order_id as own_order, own.quantity as own_quantity, own.remaining as own_remaining,
             dec.direction as dec_direction, dec.quantity as dec_quantity,
             -- what x is about: its decrease, or what closed it
             coalesce(dec.direction, own.direction) as x_direction, coalesce(dec.product_id, own.product_id) as x_product,
             coalesce(dec.order_id, own.order_id) as x_order, coalesce(dec.quantity, own.quantity) as x_quantity
      from unnest(p_product, p_key, p_decrease_key, p_order, p_quantity)
           with ordinality as q(product_id, key, decrease_key, order_id, quantity, i)
      left join stock_ledger own on own.request_id = q.key
      left join stock_ledger dec on dec.request_id = q.decrease_key
      where q.product_id = product.product_id
      order by q.i
    loop
      i := request.i;
      indices := indices || i;
      o_told[i] := product.fence;
      o_gated[i] := product.is_gated;
      o_remaining[i] := stock_left;
      if request.x_direction is not null and (
           request.x_product <> product.product_id or request.x_order <> request.order_id
           or request.x_quantity <> request.quantity and request.quantity <> 0
              and not (request.x_direction = 'CLOSED' and request.x_quantity = 0)
         ) then
        o_outcome[i] := 4; -- and no row: the right increase may come yet
      elsif request.own_direction is not null then
        if request.own_direction = 'OUT' or request.own_order = 0 then -- a change by hand
          o_outcome[i] := 4;
        elsif request.own_direction = 'IN' then
          o_outcome[i] := 1;
          o_quantity[i] := request.own_quantity;
          o_remaining[i] := request.own_remaining;
          bump := true; -- nobody may have applied it
        else
          o_outcome[i] := 3;
          o_remaining[i] := request.own_remaining;
        end if;
      elsif request.dec_direction = 'OUT' then
        o_outcome[i] := 0;
        o_quantity[i] := request.dec_quantity;
        stock_left := stock_left + request.dec_quantity;
        o_remaining[i] := stock_left;
        recorded := recorded || i;
        if not product.is_gated then bump := true; end if; -- Redis is not told
      else
        o_outcome[i] := 2;
        recorded := recorded || i;
        if request.quantity = 0 then p_quantity[i] := coalesce(request.dec_quantity, 0); end if;
        if request.dec_direction is null then closing := closing || i; end if;
      end if;
    end loop;
    if bump or stock_left <> product.stock then
      update product_stock s set stock = stock_left, fence = s.fence + bump::int where s.product_id = product.product_id;
    end if;
    if bump then
      foreach i in array indices loop o_bumped[i] := true; end loop;
    end if;
  end loop;

  if cardinality(recorded) > 0 then
    -- Archived since the row was looked for and not found: the statement is sent again (serialization_failure).
    if stock_is_archived(p_key || p_decrease_key) then raise exception 'a key of this batch was archived' using errcode = '40001'; end if;
    insert into stock_ledger (product_id, request_id, direction, quantity, reason, order_id, fence, token, remaining)
    select p_product[w], p_key[w], case o_outcome[w] when 0 then 'IN' else 'CLOSED' end,
           case o_outcome[w] when 0 then o_quantity[w] else p_quantity[w] end,
           case o_outcome[w] when 0 then 'ORDER_INCREMENT' else 'NOTHING_TO_RETURN' end, p_order[w], 0, 0, o_remaining[w]
    from unnest(recorded) as w
    union all
    select p_product[w], p_decrease_key[w], 'CLOSED', p_quantity[w], 'COMPENSATED', p_order[w], 0, 0, o_remaining[w]
    from unnest(closing) as w
    on conflict (request_id) do nothing;
    get diagnostics inserted = row_count;
    if inserted <> cardinality(recorded) + cardinality(closing) then
      raise exception 'a key of this batch is in use' using errcode = 'SG001';
    end if;
  end if;

  return query select * from unnest(o_outcome, o_told, o_bumped, o_quantity, o_remaining, o_gated);
end
$$;

-- A change by hand: a signed quantity. Redis is not told, so the statement bumps.
-- Returns outcome (0 done, 1 duplicate, 2 below zero, 3 above the maximum, 4 key reused, 5 product missing), and the stock after it.
create or replace function stock_adjust(p_product bigint, p_key text, p_quantity bigint, p_maximum bigint, p_reason text)
returns table (outcome bigint, remaining bigint, gated boolean)
language plpgsql as $$
declare
  product record;
  found_row record;
begin
  select s.* into product from product_stock s where s.product_id = p_product for update;
  if not found then return query select 5::bigint, 0::bigint, false; return; end if;
  perform stock_unarchive(array[p_key]);
  -- `DEC-x` and `INC-x` are for orders: a change by hand under one of them would stand in the way of the order's own.
  if p_key like 'DEC-%' or p_key like 'INC-%' then return query select 4::bigint, product.stock, product.is_gated; return; end if;
  select l.* into found_row from stock_ledger l where l.request_id = p_key;
  if found then
    if found_row.product_id = p_product and found_row.reason = p_reason
       and found_row.quantity * (case found_row.direction when 'IN' then 1 else -1 end) = p_quantity then
      return query select 1::bigint, found_row.remaining, product.is_gated;
    else
      return query select 4::bigint, product.stock, product.is_gated;
    end if;
    return;
  end if;
  if product.stock + p_quantity < 0 then return query select 2::bigint, product.stock, product.is_gated; return; end if;
  if product.stock + p_quantity > p_maximum then return query select 3::bigint, product.stock, product.is_gated; return; end if;
  -- Archived since the row was looked for and not found: the caller asks again.
  if stock_is_archived(array[p_key]) then raise exception 'the key was archived' using errcode = '40001'; end if;
  insert into stock_ledger (product_id, request_id, direction, quantity, reason, order_id, fence, token, remaining)
  values (p_product, p_key, case when p_quantity > 0 then 'IN' else 'OUT' end, abs(p_quantity), p_reason, 0, 0, 0, product.stock + p_quantity);
  update product_stock s set stock = s.stock + p_quantity, fence = s.fence + 1 where s.product_id = p_product;
  return query select 0::bigint, product.stock + p_quantity, product.is_gated;
end
$$;
