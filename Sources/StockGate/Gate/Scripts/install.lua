-- install: serve a product under a new fence.
--
-- KEYS[1] stock   KEYS[2] meta   KEYS[3] pending   KEYS[4] owed   KEYS[5] marker
-- ARGV[1] fence   ARGV[2] stock as of the bump   ARGV[3] 1 on sale, 0 not
-- ARGV[4] the dataset that was read before the bump, with its marker   ARGV[5] the connection's dataset now, without
-- ARGV[6] the ledger's name, or ''
--
-- Replies 0 installed, 1 a newer fence (or this one) is in, 2 the dataset changed since it was read, 3 another ledger's data is in: nothing is touched
--
-- The counter is the stock plus what is owed under this fence: commits that saw the new fence before it was installed here. Pending
-- reservations are dropped: their commits will see another fence and be counted by apply. What later fences are owed stays, and so do
-- the token sequence and the marks.
--
-- Only this script makes a counter. That a product is not on sale is written down, as the fence that says so: a counter that is missing under
-- any other fence was lost.
local marker = redis.call('GET', KEYS[5])
if not marker or ARGV[4] ~= ARGV[5] .. ':' .. marker then return 2 end
local meta = redis.call('HMGET', KEYS[2], 'fence', 'ledger')
if meta[2] and meta[2] ~= '' and meta[2] ~= ARGV[6] and ARGV[6] ~= '' then return 3 end
local fence, held = tonumber(ARGV[1]), tonumber(meta[1] or 0)
-- A fence in meta counts as newer only if a ledger can have reached it: up to 2^51, or up to 2^53 if this install's own fence is above 2^51. Any other
-- value was not written by an install, and is overwritten.
if held and (held <= 2251799813685248 or fence > 2251799813685248 and held <= 9007199254740992) and held >= fence then return 1 end
local owed = redis.call('HGETALL', KEYS[4])
local delta = 0
for i = 1, #owed, 2 do
  local under = tonumber(owed[i])
  if under == fence then delta = tonumber(owed[i + 1]) or 0 end
  if not under or under <= fence then redis.call('HDEL', KEYS[4], owed[i]) end
end
if ARGV[3] == '1' then
  redis.call('SET', KEYS[1], string.format('%.0f', tonumber(ARGV[2]) + delta))
  redis.call('HDEL', KEYS[2], 'off')
else
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[2], 'off', ARGV[1])
end
redis.call('HSET', KEYS[2], 'fence', ARGV[1], 'stamp', ARGV[4])
if ARGV[6] ~= '' then redis.call('HSET', KEYS[2], 'ledger', ARGV[6]) end
redis.call('DEL', KEYS[3])
return 0
