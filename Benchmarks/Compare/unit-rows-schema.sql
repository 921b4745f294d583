-- A row a unit: what can be taken now are at most 1,000 rows, made anew from the stock as they are taken.
create table units(product_id bigint not null, id bigint generated always as identity, primary key (product_id, id));
create table unit_reservations(id bigint generated always as identity primary key, product_id bigint not null, unit_id bigint not null,
  request_id text not null unique, created_at timestamptz not null default now());
insert into units(product_id) select 1 from generate_series(1, 1000);
