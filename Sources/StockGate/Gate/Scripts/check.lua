-- check: may this connection do what the scripts do? Each command once, on keys that no product has.
--
-- KEYS[1] string   KEYS[2] hash   KEYS[3] sorted set
--
-- Replies a flat list of a command and Redis' own words for each that it does not know or does not permit; empty if all is well. A command that fails
-- for another reason (no memory, a full disk) is left out of the list: that is for others to report.
local refused = {}
local function try(...)
  local reply = redis.pcall(...)
  local words = type(reply) == 'table' and reply.err
  if words and (string.find(words, 'nknown') or string.find(words, 'NOPERM') or string.find(words, 'ACL') or string.find(words, 'access')
    or string.find(words, 'permission') or string.find(words, "can't run")) then
    refused[#refused + 1], refused[#refused + 2] = select(1, ...), words
  end
end
try('SET', KEYS[1], '1', 'NX')
try('GET', KEYS[1])
try('MGET', KEYS[1], KEYS[1])
try('INCRBY', KEYS[1], 1)
try('DECRBY', KEYS[1], 1)
try('EXISTS', KEYS[1])
try('HSET', KEYS[2], 'a', '1', 'b', '2')
try('HINCRBY', KEYS[2], 'a', 1)
try('HGET', KEYS[2], 'a')
try('HMGET', KEYS[2], 'a', 'b')
try('HGETALL', KEYS[2])
try('HLEN', KEYS[2])
try('HSCAN', KEYS[2], '0', 'COUNT', 1)
try('HDEL', KEYS[2], 'a')
try('ZADD', KEYS[3], '1', 'a')
try('ZMSCORE', KEYS[3], 'a', 'b')
try('ZRANGEBYSCORE', KEYS[3], '-inf', '(1', 'LIMIT', 0, 1)
try('ZREM', KEYS[3], 'a')
try('TYPE', KEYS[3])
try('UNLINK', KEYS[3])
try('DEL', KEYS[1], KEYS[2], KEYS[3])
return refused
