-- reserve: take units from a product's counter and remember who holds them.
--
-- KEYS[1] stock    string, the counter
-- KEYS[2] meta     hash: fence, stamp, sequence
-- KEYS[3] pending  hash: key -> "token:quantity:time" and ":shared" once a twin has joined
-- KEYS[4] marks    sorted set: key -> time at which it was settled
-- KEYS[5] marker   string, names the dataset together with ARGV[3]
-- ARGV[1] key   ARGV[2] quantity   ARGV[3] the connection's dataset   ARGV[4] now, milliseconds
--
-- Replies {0, fence, token, left}     reserved
--         {1, fence, token, quantity} joined: pending already, with the recorded quantity
--         {2, counter}                sold out
--         {3}                         not loaded: nothing installed, or installed into another dataset
--         {4}                         not on sale: loaded without a counter
--         {5}                         already done: the key has a settled mark
local meta = redis.call('HMGET', KEYS[2], 'fence', 'stamp')
local values = redis.call('MGET', KEYS[1], KEYS[5])
if not meta[1] or not values[2] or meta[2] ~= ARGV[3] .. ':' .. values[2] then return {3} end
if redis.call('ZSCORE', KEYS[4], ARGV[1]) then return {5} end
local held = redis.call('HGET', KEYS[3], ARGV[1])
if held then
  local token, quantity, shared = string.match(held, '^(%d+):(%d+):%d+(.*)$')
  if shared == '' then redis.call('HSET', KEYS[3], ARGV[1], held .. ':shared') end
  return {1, tonumber(meta[1]), tonumber(token), tonumber(quantity)}
end
if not values[1] then return {4} end
local quantity = tonumber(ARGV[2])
if tonumber(values[1]) < quantity then return {2, tonumber(values[1])} end
local left = redis.call('DECRBY', KEYS[1], ARGV[2])
local token = redis.call('HINCRBY', KEYS[2], 'sequence', 1)
redis.call('HSET', KEYS[3], ARGV[1], token .. ':' .. ARGV[2] .. ':' .. ARGV[4])
return {0, tonumber(meta[1]), token, left}
