-- The texts of messages, beside the table that they wait in. The database makes them and not the server, because a message tells of the rows that its statement has
-- really written or changed, with the statement's own time, and because that costs no second statement. Sources/StockContract has the same writers, and the readers, in
-- Swift; a test compares them. Each function is one expression, which PostgreSQL puts into the statement that calls it: there is no call at run time.

-- A time of RFC 3339 in UTC.
create function outbox_time(moment timestamptz) returns text language sql stable as $$
  select to_char(moment at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;

-- A whole message. Events name no product: theirs is null. `orders` are the orders' texts, joined by commas.
create function outbox_message(topic text, id bigint, product bigint, moment text, orders text) returns text language sql stable as $$
  select '{"version":1,"type":"' || topic || '","messageId":"' || id || '",' || coalesce('"productId":' || product || ',', '')
    || '"time":"' || moment || '","orders":[' || orders || ']}'
$$;

-- One order of a command, an order's first run. `trace` is a W3C trace context or null.
create function outbox_command_order(id bigint, quantity bigint, buyer text, trace text) returns text language sql stable as $$
  select '{"orderId":' || id || ',"key":"DEC-' || id || '","quantity":' || quantity || ',"buyerId":' || coalesce(to_json(buyer)::text, 'null')
    || coalesce(',"traceparent":' || to_json(trace)::text, '') || '}'
$$;

-- One order of an event, as it is now.
create function outbox_event_order(
  id bigint, product bigint, code text, buyer text, quantity bigint, price bigint, status text, reason text, run bigint, version bigint,
  created text, updated text
) returns text language sql stable as $$
  select '{"id":' || id || ',"productId":' || product || ',"buyerId":' || coalesce(to_json(buyer)::text, 'null') || ',"quantity":' || quantity
    || ',"status":"' || status || '","failReason":' || coalesce(to_json(reason)::text, 'null') || ',"createdAt":"' || created
    || '","updatedAt":"' || updated || '","productCode":' || coalesce(to_json(code)::text, 'null')
    || ',"unitPrice":' || coalesce(price::text, 'null') || ',"run":' || run || ',"version":' || version || '}'
$$;
