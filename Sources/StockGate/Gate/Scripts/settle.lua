-- settle: the units of these reservations are sold. Writes a mark for each key, which ignores fences, and forgets the reservation.
--
-- KEYS[1] meta     hash: fence
-- KEYS[2] pending  hash
-- KEYS[3] marks    sorted set
-- ARGV[1] now, milliseconds   ARGV[2] marks from before this are beyond their retention, milliseconds
-- ARGV[3] how many keys   ARGV[4…] the keys, then triples of fence, token, and how many of the keys, in their order, were reserved under them
--
-- Replies the number of reservations forgotten. Prunes marks older than the retention, at most four for each one written and two more, so that pruning
-- keeps up with any rate and no call is long.
local n = tonumber(ARGV[3])
local last = 3 + n
local fence = redis.call('HGET', KEYS[1], 'fence')
local pending = redis.call('HMGET', KEYS[2], unpack(ARGV, 4, last))
local marks, settled, s, forgotten = {}, {}, 0, 0
for i = 1, n do marks[2 * i - 1], marks[2 * i] = ARGV[1], ARGV[3 + i] end
local to = 0
for group = last + 1, #ARGV, 3 do
  local from = to + 1
  to = to + ARGV[group + 2]
  if fence == ARGV[group] then
    local token = ARGV[group + 1] .. ':'
    local length = #token
    for i = from, to do
      local held = pending[i]
      if held and string.sub(held, 1, length) == token then
        s = s + 1
        settled[s] = ARGV[3 + i]
      end
    end
  end
end
redis.call('ZADD', KEYS[3], unpack(marks))
if s > 0 then forgotten = redis.call('HDEL', KEYS[2], unpack(settled)) end
local old = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', '(' .. ARGV[2], 'LIMIT', 0, 2 + 4 * n)
if #old > 0 then redis.call('ZREM', KEYS[3], unpack(old)) end
return forgotten
