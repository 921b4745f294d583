-- reserve: take units from a product's counter and remember who holds them. Any number of requests, decided one after the other in their order.
--
-- KEYS[1] stock    string, the counter
-- KEYS[2] meta     hash: fence, stamp, sequence, off (the fence under which the product is not on sale), ledger (its name)
-- KEYS[3] pending  hash: key -> "token:quantity:time" and ":shared" once a twin has joined
-- KEYS[4] marks    sorted set: key -> time at which it was settled
-- KEYS[5] marker   string, names the dataset together with ARGV[1]
-- ARGV[1] the connection's dataset   ARGV[2] now, milliseconds   ARGV[3] the ledger's name, or ''
-- ARGV[4] how many requests   ARGV[5…] their keys, then one quantity that all of them want, or a quantity for each
--
-- Replies a flat list of integers, in one of three forms, told apart by their length:
--         0                   not loaded, all of them: nothing installed, or installed into another dataset or by another ledger, or the counter was lost
--         fence, token, left  all reserved, under this token; the counter after the last of them
--         fence, then three for each request:
--           0, token, left      reserved
--           1, token, quantity  joined: pending already, with the recorded quantity
--           2, counter, 0       sold out
--           4, 0, 0             not on sale: the install wrote so
--           5, 0, 0             already done: the key has a settled mark
--
-- What Redis stores is read once and written once for all of them: a command costs more than the request that it is for. For the same reason all that
-- one call reserves has one token, a new one: a token tells one reservation of a key from another, and a key is reserved once in a call.
local meta = redis.call('HMGET', KEYS[2], 'fence', 'stamp', 'sequence', 'ledger')
local values = redis.call('MGET', KEYS[1], KEYS[5])
-- A fence that is no number, or too large for a script to compare exactly, was not written by an install: the product is not loaded. MGET reads a
-- counter of another type as missing; GET then raises an error for it.
local fence = tonumber(meta[1] or 0)
if not fence or not (fence >= 1 and fence <= 9007199254740992) or not values[2] or meta[2] ~= ARGV[1] .. ':' .. values[2]
  or meta[4] and meta[4] ~= '' and meta[4] ~= ARGV[3] and ARGV[3] ~= ''
  or not values[1] and not redis.call('GET', KEYS[1]) and redis.call('HGET', KEYS[2], 'off') ~= meta[1] then
  return {0}
end
local n = tonumber(ARGV[4])
local last = 4 + n
local marks = redis.call('ZMSCORE', KEYS[4], unpack(ARGV, 5, last))
local pending = redis.call('HMGET', KEYS[3], unpack(ARGV, 5, last))
local left, token = tonumber(values[1]), (tonumber(meta[3]) or 0) + 1
-- A counter that is there and is no number of Redis is neither lost, nor off sale, nor sold out: Redis' own error has the product's keys made anew.
if values[1] and (not left or left <= -9223372036854775808) then redis.call('INCRBY', KEYS[1], 0) end
local prefix, suffix = string.format('%.0f:', token), ':' .. ARGV[2]
local mine = {} -- of the keys reserved by this call: what is pending for them
local written, w = {}, 0

local function keep(taken)
  redis.call('DECRBY', KEYS[1], taken)
  redis.call('HINCRBY', KEYS[2], 'sequence', 1)
end

-- What nearly every call of a sale is: new keys that want as much as each other, and enough for all.
if left and #ARGV == last + 1 then
  local total = n * tonumber(ARGV[last + 1])
  local plain = total <= left
  local held = prefix .. ARGV[last + 1] .. suffix
  local i = 1
  while plain and i <= n do
    local key = ARGV[4 + i]
    plain = not (marks[i] or pending[i] or mine[key])
    mine[key] = held
    written[w + 1], written[w + 2] = key, held
    i, w = i + 1, w + 2
  end
  if plain then
    keep(total)
    redis.call('HSET', KEYS[3], unpack(written))
    return {fence, token, left - total}
  end
  mine, written, w = {}, {}, 0
end

local replies, r, taken = {fence}, 1, 0
for i = 1, n do
  local key, text = ARGV[4 + i], ARGV[last + i] or ARGV[last + 1]
  local held = mine[key] or pending[i]
  local code, first, second = 0, token, 0
  if marks[i] then
    code, first = 5, 0
  elseif held then
    local number, quantity, shared = string.match(held, '^(%d+):(%d+):%d+(.*)$')
    code, first, second = 1, tonumber(number), tonumber(quantity)
    if shared == '' then
      held = held .. ':shared'
      mine[key] = held
      written[w + 1], written[w + 2] = key, held
      w = w + 2
    end
  elseif not left then
    code, first = 4, 0
  else
    local quantity = tonumber(text)
    if left < quantity then
      code, first = 2, left
    else
      left, taken = left - quantity, taken + quantity
      second = left
      held = prefix .. text .. suffix
      mine[key] = held
      written[w + 1], written[w + 2] = key, held
      w = w + 2
    end
  end
  replies[r + 1], replies[r + 2], replies[r + 3] = code, first, second
  r = r + 3
end
if taken > 0 then keep(taken) end
if w > 0 then redis.call('HSET', KEYS[3], unpack(written)) end
return replies
