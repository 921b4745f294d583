-- apply: stock changes that were committed under a fence other than a reservation's. Never sent twice by its callers.
--
-- KEYS[1] stock    string, the counter
-- KEYS[2] meta     hash: fence, ledger
-- KEYS[3] owed     hash: fence -> sum of signed deltas
-- KEYS[4] marks    sorted set
-- ARGV[1] now, milliseconds   ARGV[2] the ledger's name, or ''
-- ARGV[3…] triples of fence, signed delta, and the key of a decrement to mark ('' for an increase)
--
-- A missing counter stays missing, whether it was lost or the product is not on sale: the next install counts what is in the ledger.
--
-- Replies a list, one number a triple: 0 applied, 1 behind (Redis is under an older fence: owed), 2 passed (a later install has counted it,
-- or what is here belongs to another ledger and is left alone)
local meta = redis.call('HMGET', KEYS[2], 'fence', 'ledger')
local current = tonumber(meta[1] or 0) or 0
local foreign = meta[2] and meta[2] ~= '' and meta[2] ~= ARGV[2] and ARGV[2] ~= ''
local counted = redis.call('EXISTS', KEYS[1]) == 1
local replies = {}
for i = 3, #ARGV, 3 do
  local fence = tonumber(ARGV[i])
  if ARGV[i + 2] ~= '' and not foreign then redis.call('ZADD', KEYS[4], ARGV[1], ARGV[i + 2]) end
  if foreign then
    replies[#replies + 1] = 2
  elseif fence == current then
    if counted then redis.call('INCRBY', KEYS[1], ARGV[i + 1]) end
    replies[#replies + 1] = 0
  elseif fence > current then
    redis.call('HINCRBY', KEYS[3], ARGV[i], ARGV[i + 1])
    -- Before the first install, what is owed is marked with the ledger's name, so that another ledger's install does not count it.
    if (not meta[2] or meta[2] == '') and ARGV[2] ~= '' then redis.call('HSET', KEYS[2], 'ledger', ARGV[2]) end
    replies[#replies + 1] = 1
  else
    replies[#replies + 1] = 2
  end
end
return replies
