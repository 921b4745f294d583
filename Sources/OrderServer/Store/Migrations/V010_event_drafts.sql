-- Events whose text the relay makes. The statement that changes the orders writes only what its server knows of them (the draft, in `payload`) and what the statement
-- alone knows: which orders it has really changed, when, and to which version. Making the whole text inside the statement cost PostgreSQL more than the orders did.

alter table outbox
  -- of a draft: when its orders were changed; null for a row whose payload is the message itself
  add column moment timestamptz,
  -- of a draft: the version of each order of `order_ids`; null if it is 1 for all of them
  add column versions bigint[],
  drop constraint outbox_lane_check,
  -- commands: product_id % 16; events: 16; drafts of events: 17, which a server of a version before leaves alone
  add constraint outbox_lane_check check (lane between 0 and 17);

insert into outbox_lanes values (17);
