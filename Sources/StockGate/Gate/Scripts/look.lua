-- look: what Redis holds for one product. A resync makes the product's marker on the way.
--
-- KEYS[1] stock   KEYS[2] meta   KEYS[3] pending   KEYS[4] marker
-- ARGV[1] a marker to set if there is none, '' to change nothing
--
-- Replies {marker or '', stamp or '', fence or 0, counter or '', pending reservations, 1 if the install wrote that the product is not on sale};
-- the counter is a string
if ARGV[1] ~= '' then redis.call('SET', KEYS[4], ARGV[1], 'NX') end
local meta = redis.call('HMGET', KEYS[2], 'fence', 'stamp', 'off')
local values = redis.call('MGET', KEYS[1], KEYS[4])
return {values[2] or '', meta[2] or '', tonumber(meta[1] or 0), values[1] or '', redis.call('HLEN', KEYS[3]),
  meta[3] and meta[3] == meta[1] and 1 or 0}
