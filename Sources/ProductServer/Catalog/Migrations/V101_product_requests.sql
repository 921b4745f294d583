-- The keys that products were made under: a POST /products that is sent again finds what its first try made. Written in one transaction with the product;
-- kept as long as the product.
create table product_requests (
  idempotency_key text collate "C" primary key,
  product_id bigint not null references products (id),
  -- What was asked for, as it was understood: the key stands for this alone. The code is null where one was made up.
  code text collate "C",
  name text collate "C" not null,
  price bigint not null,
  stock bigint not null,
  stock_strategy text collate "C" not null,
  created_at timestamptz not null default now()
);
