-- Messages that leave with the orders they tell of: written in the orders' own statements, published by a relay.

alter table orders
  -- one more with each change; an event is applied only over a smaller one
  add column version bigint not null default 1,
  -- the outbox row that carries the order to the product server; null for an order that went there by a call
  add column message_id bigint;

-- Ids are taken in blocks, so that a batch costs no call for them.
create sequence outbox_ids increment by 1024;

-- One row is one message: the orders of one group for one product, or the events of one kind of one group.
create table outbox (
  id bigint primary key,
  -- commands: product_id % 16; events: 16
  lane smallint not null check (lane between 0 and 16),
  -- the routing key
  topic text collate "C" not null,
  -- null for events
  product_id bigint,
  order_ids bigint[] not null,
  payload text not null,
  -- W3C trace context, if the message has one order
  traceparent text,
  status text collate "C" not null default 'NEW' check (status in ('NEW', 'SENT', 'FAILED', 'DEAD')),
  -- how often it was published; written before it is
  attempts bigint not null default 0,
  -- of a FAILED row
  due_at timestamptz,
  -- why the last attempt failed
  error text,
  created_at timestamptz not null default now(),
  sent_at timestamptz,
  -- of a SENT command: when its orders were looked at, and those still PENDING handed to recovery
  checked_at timestamptz
) with (fillfactor = 50); -- two updates each, soon: the count of attempts stays on its page

-- Payloads are read once and short-lived: no time is spent on compressing them.
alter table outbox alter column payload set storage external;

-- What waits for the two relays, that of commands (0) and that of events (1), oldest first: however many rows of one kind wait, the other's are found at once.
create index outbox_waiting on outbox ((lane / 16), id) where status in ('NEW', 'FAILED');
-- What holds the later commands of its product back.
create index outbox_failed on outbox (product_id, id) where status = 'FAILED';
create index outbox_dead on outbox (id) where status = 'DEAD';
-- What recovery has not looked at.
create index outbox_unchecked on outbox (sent_at) where status = 'SENT' and checked_at is null and product_id is not null;
-- What can go.
create index outbox_sent on outbox (sent_at) where status = 'SENT';

-- A relay locks the lanes it publishes from, so that each has one relay at a time over all instances.
create table outbox_lanes (lane smallint primary key);
insert into outbox_lanes select generate_series(0, 16);
