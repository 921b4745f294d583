-- mend: forget what Redis holds for one product, for it cannot be used: a key has another type, or holds what no script of ours writes.
--
-- KEYS[1] stock   KEYS[2] meta   KEYS[3] pending   KEYS[4] owed   KEYS[5] marks   KEYS[6] marker
--
-- Replies the number of keys that were removed
--
-- The same as if Redis had been emptied, for this product alone: the dataset's name changes with the marker, so that an install of a fence that was
-- raised before this is refused. Marks that can be used are kept, for they prove what is done whatever else is lost.
local removed = redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[6])
local marks = redis.call('TYPE', KEYS[5]).ok
if marks ~= 'zset' and marks ~= 'none' then removed = removed + redis.call('UNLINK', KEYS[5]) end
return removed
