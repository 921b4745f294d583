-- pgbench script: the ledger's own function with 128 decrements of one product, as the product server calls it when the crowd is there.
-- -D product=ID and fence=N are given. Keys grow like those of orders, so that the index grows at its end.
select count(*) from stock_commit(
  array_fill(:product::bigint, array[128]),
  array(select 'PB-' || (extract(epoch from now()) * 1000000)::bigint || '-' || :client_id || '-' || g from generate_series(1, 128) g),
  array_fill(1::bigint, array[128]),
  array(select g::bigint from generate_series(1, 128) g),
  array_fill(:fence::bigint, array[128]),
  array_fill(0::bigint, array[128]),
  array_fill(0::bigint, array[128])
);
