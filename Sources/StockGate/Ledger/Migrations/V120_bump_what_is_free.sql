-- Raises the fences of many products without one of them holding the others up.
--
-- p_wait: milliseconds to wait for a row that another transaction has locked, for all of them; beyond it the statement fails (SQLSTATE 55P03) and raises
-- none. 0: waits for none; a product whose row is locked is returned as it is, with is_locked, and the others are raised.
-- Returns one row a product that exists: fence, stock and status as of this statement.
create function stock_bump(p_product bigint[], p_wait bigint)
returns table (product_id bigint, fence bigint, stock bigint, is_on_sale boolean, is_locked boolean)
language plpgsql as $$
declare
  held bigint[] := '{}';
begin
  if p_wait > 0 then
    perform set_config('lock_timeout', p_wait || 'ms', true);
    for product_id in select s.product_id from product_stock s where s.product_id = any(p_product) order by s.product_id for update loop
      held := held || product_id;
    end loop;
  else
    for product_id in
      select s.product_id from product_stock s where s.product_id = any(p_product) order by s.product_id for update skip locked
    loop
      held := held || product_id;
    end loop;
  end if;
  return query
    update product_stock s set fence = s.fence + 1 where s.product_id = any(held)
    returning s.product_id, s.fence, s.stock, s.is_on_sale, false;
  return query
    select s.product_id, s.fence, s.stock, s.is_on_sale, true from product_stock s
    where s.product_id = any(p_product) and s.product_id <> all(held);
end
$$;
