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
local forgotten = 0
for i = 3, #ARGV, 3 do
  redis.call('ZADD', KEYS[3], ARGV[1], ARGV[i + 1])
  if fence == ARGV[i] then
    local held = redis.call('HGET', KEYS[2], ARGV[i + 1])
    if held and string.match(held, '^(%d+):') == ARGV[i + 2] then
      redis.call('HDEL', KEYS[2], ARGV[i + 1])
      forgotten = forgotten + 1
    end
  end
end
local old = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', '(' .. (ARGV[1] - ARGV[2]), 'LIMIT', 0, #ARGV)
if #old > 0 then redis.call('ZREM', KEYS[3], unpack(old)) end
return forgotten
