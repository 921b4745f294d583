-- How far a replica of the orders is in the stream that it is made from. Only a server that follows makes this table, under version numbers of its own.

create table follow_position (
  stream text primary key,
  -- the newest message applied, in one transaction with what it says
  last_offset bigint check (last_offset >= 0),
  -- messages that the stream no longer had when this replica came to them
  missed_at_beginning bigint not null default 0,
  missed_later bigint not null default 0,
  gaps bigint not null default 0,
  -- when the replica was last known to have everything
  complete_at timestamptz,
  updated_at timestamptz not null default now()
);
