-- reserve: take units from a product's counter and remember who holds them. Any number of requests, decided one after the other in their order.
--
-- KEYS[1] stock    string, the counter
-- KEYS[2] meta     hash: fence, stamp, sequence, off (the fence under which the product is not on sale), ledger (its name)
-- KEYS[3] pending  hash: key -> "token:quantity:time" and ":shared" once a twin has joined
-- KEYS[4] marks    sorted set: key -> time at which it was settled
-- KEYS[5] marker   string, names the dataset together with ARGV[1]
-- ARGV[1] the connection's dataset   ARGV[2] now, milliseconds   ARGV[3] the ledger's name, or ''   ARGV[4…] pairs of key and quantity
--
-- Replies a flat list of integers: the fence (0: not loaded), then three for each pair:
--         0, token, left      reserved
--         1, token, quantity  joined: pending already, with the recorded quantity
--         2, counter, 0       sold out
--         3, 0, 0             not loaded: nothing installed, or installed into another dataset or by another ledger, or the counter was lost
--         4, 0, 0             not on sale: the install wrote so
--         5, 0, 0             already done: the key has a settled mark
--
-- What Redis stores is read once and written once for all of them: a command costs more than the request that it is for.
local meta = redis.call('HMGET', KEYS[2], 'fence', 'stamp', 'sequence', 'ledger')
local values = redis.call('MGET', KEYS[1], KEYS[5])
local replies, n = {0}, 1
-- What is no number, or one that a script cannot compare, is no fence: nobody installed it. MGET takes a counter of another type for
-- none; the GET names it as an error.
local fence = tonumber(meta[1] or 0)
if not fence or not (fence >= 1 and fence <= 9007199254740992) or not values[2] or meta[2] ~= ARGV[1] .. ':' .. values[2]
  or meta[4] and meta[4] ~= ARGV[3] and ARGV[3] ~= ''
  or not values[1] and not redis.call('GET', KEYS[1]) and redis.call('HGET', KEYS[2], 'off') ~= meta[1] then
  for _ = 4, #ARGV, 2 do
    replies[n + 1], replies[n + 2], replies[n + 3] = 3, 0, 0
    n = n + 3
  end
  return replies
end
replies[1] = fence
local keys = {}
for i = 4, #ARGV, 2 do keys[#keys + 1] = ARGV[i] end
local marks = redis.call('ZMSCORE', KEYS[4], unpack(keys))
local pending = redis.call('HMGET', KEYS[3], unpack(keys))
local left, sequence = tonumber(values[1]), tonumber(meta[3]) or 0
local taken, tokens, written = 0, 0, {}
local mine = {} -- of the keys reserved by this call: what is pending for them
for i = 1, #keys do
  local key, text = keys[i], ARGV[2 * i + 3]
  local held = mine[key] or pending[i]
  local code, first, second = 0, 0, 0
  if marks[i] then
    code = 5
  elseif held then
    local token, quantity, shared = string.match(held, '^(%d+):(%d+):%d+(.*)$')
    code, first, second = 1, tonumber(token), tonumber(quantity)
    if shared == '' then
      held = held .. ':shared'
      mine[key] = held
      written[#written + 1], written[#written + 2] = key, held
    end
  elseif not left then
    code = 4
  else
    local quantity = tonumber(text)
    if left < quantity then
      code, first = 2, left
    else
      left, taken, tokens = left - quantity, taken + quantity, tokens + 1
      first, second = sequence + tokens, left
      held = first .. ':' .. text .. ':' .. ARGV[2]
      mine[key] = held
      written[#written + 1], written[#written + 2] = key, held
    end
  end
  replies[n + 1], replies[n + 2], replies[n + 3] = code, first, second
  n = n + 3
end
if tokens > 0 then
  redis.call('DECRBY', KEYS[1], taken)
  redis.call('HINCRBY', KEYS[2], 'sequence', tokens)
end
if #written > 0 then redis.call('HSET', KEYS[3], unpack(written)) end
return replies
