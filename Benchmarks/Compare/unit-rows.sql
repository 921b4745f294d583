-- pgbench script: takes one unit that nobody else is taking, and writes down who has it; every hundredth fills the rows up again.
\set refill random(1, 100)
begin;
with taken as (
  delete from units where (product_id, id) in (select product_id, id from units where product_id = 1 limit 1 for update skip locked) returning id
)
insert into unit_reservations(product_id, unit_id, request_id) select 1, id, gen_random_uuid()::text from taken;
commit;
\if :refill = 1
insert into units(product_id) select 1 from generate_series(1, greatest(0, 1000 - (select count(*) from units where product_id = 1)));
\endif
