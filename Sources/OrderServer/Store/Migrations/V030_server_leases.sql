-- Which order servers that sell are there, where a pooler stands before the database and no session can hold a lock: each server's row says until when it counts as living.
create table order_server_leases (
  server text primary key,
  held_until timestamptz not null
);
