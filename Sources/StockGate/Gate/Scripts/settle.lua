-- settle: the units of these reservations are sold. Writes a mark for each key, which ignores fences, and forgets the reservation.
--
-- KEYS[1] meta     hash: fence
-- KEYS[2] pending  hash
-- KEYS[3] marks    sorted set
-- ARGV[1] now, milliseconds   ARGV[2] retention of marks, milliseconds
-- ARGV[3…] triples of fence, key, token
--
-- Replies the number of reservations forgotten. Prunes marks older than the retention, at most four for each one written, so that pruning
-- keeps up with any rate and no call is long.
local fence = redis.call('HGET', KEYS[1], 'fence')
local keys, marks, settled, forgotten = {}, {}, {}, 0
for i = 4, #ARGV, 3 do
  keys[#keys + 1] = ARGV[i]
  marks[#marks + 1], marks[#marks + 2] = ARGV[1], ARGV[i]
end
local pending = redis.call('HMGET', KEYS[2], unpack(keys))
for i = 1, #keys do
  local held = pending[i]
  if held and fence == ARGV[3 * i] and string.match(held, '^(%d+):') == ARGV[3 * i + 2] then settled[#settled + 1] = keys[i] end
end
redis.call('ZADD', KEYS[3], unpack(marks))
if #settled > 0 then forgotten = redis.call('HDEL', KEYS[2], unpack(settled)) end
local old = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', '(' .. (ARGV[1] - ARGV[2]), 'LIMIT', 0, #ARGV)
if #old > 0 then redis.call('ZREM', KEYS[3], unpack(old)) end
return forgotten
