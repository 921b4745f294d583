-- A batch of several products costs little more than a batch of one.
--
-- A shop with many products sends batches in which nearly every request is for another product. The function went through them product by product, with a
-- query and an update each, and each query unfolded all of the batch: a request took 86 us in batches of 50 for 50 products, and 28 us in batches of 42 for
-- one. What nearly every such batch is (new keys, enough stock, the fence of now, all on sale) is now checked and written in one statement, as it is for one
-- product since the ledger's beginning. Whatever else is in the batch leaves it to the loop, which decides as before.

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
  -- by product, of a batch for several: what was locked, in the order of the ids
  l_product bigint[];
  l_stock bigint[];
  l_fence bigint[];
  l_gated boolean[];
  l_place tid[];
  l_on_sale boolean;
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
    select array_agg(l.product_id), array_agg(l.stock), array_agg(l.fence), array_agg(l.is_gated), array_agg(l.place), bool_and(l.is_on_sale)
    into l_product, l_stock, l_fence, l_gated, l_place, l_on_sale
    from (select s.*, s.ctid as place from product_stock s where s.product_id = any(p_product) order by s.product_id for update) l;
    -- The same as above for several products: the row of each is locked and stays where it was found. A request finds its product by binary search in the sorted
    -- ids; a missing product leads to another one's place, which the comparison of the ids tells. If one request is not plain, nothing is written and no row
    -- is returned.
    if l_on_sale then
      return query
        with request as materialized (
          select q.*, width_bucket(q.product_id, l_product) as row
          from unnest(p_product, p_key, p_quantity, p_order, p_fence, p_token)
            with ordinality as q(product_id, key, quantity, order_id, fence, token, nth)
        ), decided as materialized (
          select r.*, l_stock[r.row] - sum(r.quantity) over (partition by r.row order by r.nth) as left_over from request r
        ), plain as materialized (
          select bool_and(d.product_id is not distinct from l_product[d.row] and d.fence = l_fence[d.row] and d.left_over >= 0)
            and not exists (select from stock_ledger l where l.request_id = any(p_key))
            and (not exists (select from stock_archived_keys k) or not stock_is_archived(p_key)) as is_plain
          from decided d
        ), sold as (
          update product_stock s set stock = d.stock
          from (select r.row, min(r.left_over)::bigint as stock from decided r group by r.row) d
          where (select is_plain from plain) and s.ctid = l_place[d.row] and s.product_id = l_product[d.row]
          returning s.product_id
        ), written_down as (
          insert into stock_ledger (product_id, request_id, direction, quantity, reason, order_id, fence, token, remaining)
          select d.product_id, d.key, 'OUT', d.quantity, 'ORDER_DECREMENT', d.order_id, d.fence, d.token, d.left_over
          from decided d where (select is_plain from plain) order by d.nth
        )
        -- Each product was written. Were one missed, the division by zero would undo the batch.
        select 0 / ((select count(*) from sold) = cardinality(l_product))::int::bigint, d.fence, false, d.left_over::bigint, l_gated[d.row]
        from decided d where (select is_plain from plain) order by d.nth;
      if found then return; end if;
    end if;
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
