-- wrk script: one buyer after another, each with a key of its own. Run with -t1 and, after `--`, the id to start after:
-- ids of two runs must not meet, since a key that is known is answered without work.
-- The request is put together by hand: wrk.format costs the load generator more than the request costs some of the servers.
dofile(debug.getinfo(1, "S").source:match("^@(.*)/") .. "/result.lua")
local n, head
function init(args)
  n = tonumber(args[1])
  head = "PATCH " .. wrk.path .. " HTTP/1.1\r\nHost: " .. wrk.headers["Host"] .. "\r\nContent-Type: application/json\r\n"
end
function request()
  n = n + 1
  -- `..` would write a number from 10^14 on as 1e+14, which is neither a whole number in JSON nor a key of its own.
  local id = string.format("%d", n)
  local body = '{"orderId":' .. id .. ',"quantity":1}'
  return head .. "Idempotency-Key: DEC-" .. id .. "\r\nContent-Length: " .. #body .. "\r\n\r\n" .. body
end
