-- prune: one bounded step. Removes marks that are older than their retention.
--
-- KEYS[1] marks    sorted set: key -> time at which it was settled
-- KEYS[2] meta     hash: ledger
-- ARGV[1] marks from before this go, milliseconds   ARGV[2] at most so many in this step   ARGV[3] the ledger's name, or ''
--
-- Replies {number of marks that were removed, as many as ARGV[2] if there may be more; time of the oldest mark left in milliseconds, or 0 for none}. Another
-- ledger's marks are left to that ledger's servers, as if there were none. The script uses only commands that Redis permits when it is out of memory.
local ledger = redis.call('HGET', KEYS[2], 'ledger')
if ledger and ledger ~= '' and ledger ~= ARGV[3] and ARGV[3] ~= '' then return {0, 0} end
local old = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[1], 'LIMIT', 0, ARGV[2])
if #old > 0 then redis.call('ZREM', KEYS[1], unpack(old)) end
local left = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return {#old, math.floor(tonumber(left[2] or 0))}
