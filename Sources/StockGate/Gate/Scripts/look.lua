-- look: what Redis holds for one product. A resync makes the product's marker on the way.
--
-- KEYS[1] stock   KEYS[2] meta   KEYS[3] pending   KEYS[4] marker   KEYS[5] owed
-- ARGV[1] a marker to set if there is none, '' to change nothing
--
-- Replies {marker or '', stamp or '', fence or 0, counter or '', pending reservations, 1 if the install wrote that the product is not on sale,
-- the highest fence that anything here names, the name of the ledger that installed it or ''}; the counter is a string. A fence that is no number, or
-- too large for a script to compare exactly, is reported as 0.
if ARGV[1] ~= '' then redis.call('SET', KEYS[4], ARGV[1], 'NX') end
local meta = redis.call('HMGET', KEYS[2], 'fence', 'stamp', 'off', 'ledger')
local function known(text)
  local fence = tonumber(text or 0)
  return fence and fence >= 1 and fence <= 9007199254740992 and fence or 0
end
local fence = known(meta[1])
local highest = fence
local owed = redis.call('HGETALL', KEYS[5])
for i = 1, #owed, 2 do highest = math.max(highest, known(owed[i])) end
local values = redis.call('MGET', KEYS[1], KEYS[4])
return {values[2] or '', meta[2] or '', fence, values[1] or '', redis.call('HLEN', KEYS[3]),
  meta[3] and meta[3] == meta[1] and 1 or 0, highest, meta[4] or ''}
