-- Sums of a product's ledger up to a row, so that an audit reads what came behind it and no more.
--
-- Rows of one product are written under the lock of its row in product_stock, and their ids are drawn under it, too; the lock is held until the commit. So
-- within a product ids are committed in ascending order: once a row is seen, no smaller id of that product appears any more, and a sum up to it stays true.
-- Whoever writes rows by hand has to lock the product's row first, as every function of the ledger does.
--
-- The sums are kept by whoever audits, not by the sale: a commit writes what it wrote before.

create table stock_ledger_totals (
  product_id bigint primary key,
  -- rows with this id and below are in the sums
  up_to_id bigint not null default 0,
  entries bigint not null default 0,
  -- added by hand, less what was taken by hand
  restocked bigint not null default 0,
  -- decremented for orders
  sold bigint not null default 0,
  -- came back from orders
  returned bigint not null default 0,
  updated_at timestamptz not null default now()
);

-- Takes the next p_rows rows of a product into its sums. Two at once wait for each other. Returns how many there were: fewer than p_rows, and all are in.
create function stock_ledger_advance(p_product bigint, p_rows bigint) returns bigint
language plpgsql
-- Rows are walked in the order of the primary key; a plan that was made while the ledger was empty would sort all of it.
set enable_seqscan = off set enable_sort = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
  kept record;
  more record;
begin
  insert into stock_ledger_totals (product_id) values (p_product) on conflict (product_id) do nothing;
  select t.* into kept from stock_ledger_totals t where t.product_id = p_product for update;
  select count(*) as entries, max(l.id) as up_to_id,
    coalesce(sum(l.quantity) filter (where l.direction = 'IN' and l.reason <> 'ORDER_INCREMENT'), 0)
      - coalesce(sum(l.quantity) filter (where l.direction = 'OUT' and l.reason <> 'ORDER_DECREMENT'), 0) as restocked,
    coalesce(sum(l.quantity) filter (where l.direction = 'OUT' and l.reason = 'ORDER_DECREMENT'), 0) as sold,
    coalesce(sum(l.quantity) filter (where l.direction = 'IN' and l.reason = 'ORDER_INCREMENT'), 0) as returned
  into more
  from (
    select r.id, r.quantity, r.direction, r.reason from stock_ledger r
    where r.product_id = p_product and r.id > kept.up_to_id order by r.id limit p_rows
  ) l;
  if more.entries > 0 then
    update stock_ledger_totals t set up_to_id = more.up_to_id, entries = t.entries + more.entries, restocked = t.restocked + more.restocked,
      sold = t.sold + more.sold, returned = t.returned + more.returned, updated_at = now()
    where t.product_id = p_product;
  end if;
  return more.entries;
end
$$;
