-- wrk sends what flash-sale sends: an order under an idempotency key of its own, a buyer of 10,000.
local threads = 0
function setup(thread)
  thread:set("thread", threads)
  threads = threads + 1
end

local fields = { ["Content-Type"] = "application/json" }
local count = 0
function request()
  count = count + 1
  fields["Idempotency-Key"] = "wrk-" .. thread .. "-" .. count
  local body = '{"productId":7,"quantity":1,"buyerId":"buyer-' .. count % 10000 .. '"}'
  return wrk.format("POST", "/order-service/orders", fields, body)
end
