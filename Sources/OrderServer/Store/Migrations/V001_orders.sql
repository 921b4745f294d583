-- Orders, their sagas, and what is left to settle.

-- Ids are taken in blocks, so that a batch of orders costs no call for them.
create sequence order_ids increment by 1024;

create table orders (
  id bigint primary key,
  product_id bigint not null check (product_id > 0),
  -- the code that the buyer named the product by, if it was a code
  product_code text,
  buyer_id text,
  quantity bigint not null check (quantity between 1 and 1000000000),
  unit_price bigint check (unit_price between 0 and 1000000000000),
  status text collate "C" not null check (status in ('PENDING', 'CONFIRMED', 'FAILED', 'CANCELLED')),
  fail_reason text collate "C",
  idempotency_key text collate "C",
  -- 1, and one more each time a FAILED order is run again: the n of DEC-{id}.n
  run bigint not null default 1,
  -- JSON objects {"step", "run", "action", "outcome", "attempts", "at"} with commas between them; text, because it is only ever appended to and shown
  steps text not null default '',
  -- set before the stock is given back, so that a crash in between is settled
  cancel_requested_at timestamptz,
  cancel_key text collate "C",
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
) with (fillfactor = 35); -- every order is updated once, soon: with room on its page and no changed index column, in place (heap-only tuples)

create unique index orders_idempotency_key on orders (idempotency_key) where idempotency_key is not null;
create index orders_buyer on orders (buyer_id, id) where buyer_id is not null;
-- No index names the status: an update of it would then write every index. PENDING orders are found by their age instead.
create index orders_created on orders (created_at);

-- Orders whose saga nobody may be driving any more. An entry is claimed by moving due_at ahead (a lease) and deleted when the order is settled.
create table saga_work (
  order_id bigint primary key,
  due_at timestamptz not null,
  -- how often the order's keys may have been sent before
  attempts bigint not null default 1
);
create index saga_work_due on saga_work (due_at);

-- Every PENDING order made before this time is in saga_work.
create table recovery_mark (
  single boolean primary key default true check (single),
  collected_until timestamptz not null
);
insert into recovery_mark values (true, '-infinity');
