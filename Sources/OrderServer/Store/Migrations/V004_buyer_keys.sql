-- A key belongs to the buyer who used it. Orders that name no buyer share one scope, the empty text, which no buyer's id is. Orders made before this keep their keys:
-- what was unique among all orders is unique within a buyer's. A server of the version before still finds its keys through this index.
create unique index orders_buyer_key on orders (idempotency_key, (coalesce(buyer_id, '') collate "C")) where idempotency_key is not null;
drop index orders_idempotency_key;

alter table orders
  -- key and reason of the last final refusal to take the order's stock back; null for none
  add column undo_refused text collate "C";
