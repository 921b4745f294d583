-- install: serve a product under a new fence.
--
-- KEYS[1] stock   KEYS[2] meta   KEYS[3] pending   KEYS[4] owed   KEYS[5] marker
-- ARGV[1] fence   ARGV[2] stock as of the bump   ARGV[3] 1 on sale, 0 not
-- ARGV[4] the dataset that was read before the bump, with its marker   ARGV[5] the connection's dataset now, without
--
-- Replies 0 installed, 1 a newer fence (or this one) is in, 2 the dataset changed since it was read
--
-- The counter is the stock plus what is owed under this fence: commits that saw the new fence before it was installed here. Pending
-- reservations are dropped: their commits will see another fence and be counted by apply. What later fences are owed stays, and so do
-- the token sequence and the marks.
--
-- Only this script makes a counter. That a product is not on sale is written down, as the fence that says so: a counter that is missing under
-- any other fence was lost.
local marker = redis.call('GET', KEYS[5])
if not marker or ARGV[4] ~= ARGV[5] .. ':' .. marker then return 2 end
local fence = tonumber(ARGV[1])
if tonumber(redis.call('HGET', KEYS[2], 'fence') or 0) >= fence then return 1 end
local owed = redis.call('HGETALL', KEYS[4])
local delta = 0
for i = 1, #owed, 2 do
  local under = tonumber(owed[i])
  if under == fence then delta = tonumber(owed[i + 1]) end
  if under <= fence then redis.call('HDEL', KEYS[4], owed[i]) end
end
if ARGV[3] == '1' then
  redis.call('SET', KEYS[1], string.format('%.0f', tonumber(ARGV[2]) + delta))
  redis.call('HDEL', KEYS[2], 'off')
else
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[2], 'off', ARGV[1])
end
redis.call('HSET', KEYS[2], 'fence', ARGV[1], 'stamp', ARGV[4])
redis.call('DEL', KEYS[3])
return 0
