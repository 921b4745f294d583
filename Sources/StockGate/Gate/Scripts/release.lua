-- release: give reservations back. Each gives back the quantity that was recorded for it, once, and only under its own fence and token.
--
-- KEYS[1] stock    string, the counter
-- KEYS[2] meta     hash: fence
-- KEYS[3] pending  hash
-- ARGV[1…] quadruples of fence, key, token, and R (the ledger refused it) or A (abandoned: its commit did not run). An abandoned one that a
--          twin has joined stays pending: the twin may be committing under the same token.
--
-- Replies the number of reservations given back. A second release does nothing. A lost counter is not made anew, because it
-- would hold only what is given back. The next install counts all of the stock.
local fence = redis.call('HGET', KEYS[2], 'fence')
local counted = redis.call('EXISTS', KEYS[1]) == 1
local given = 0
for i = 1, #ARGV, 4 do
  if fence == ARGV[i] then
    local held = redis.call('HGET', KEYS[3], ARGV[i + 1])
    if held then
      local token, quantity, shared = string.match(held, '^(%d+):(%d+):%d+(.*)$')
      if token == ARGV[i + 2] and (ARGV[i + 3] == 'R' or shared == '') then
        redis.call('HDEL', KEYS[3], ARGV[i + 1])
        if counted then redis.call('INCRBY', KEYS[1], quantity) end
        given = given + 1
      end
    end
  end
end
return given
