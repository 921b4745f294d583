-- mend: forget what Redis holds for one product, for it cannot be used: a key has another type, or holds what no script of ours writes.
--
-- KEYS[1] stock   KEYS[2] meta   KEYS[3] pending   KEYS[4] owed   KEYS[5] marks   KEYS[6] marker
-- ARGV[1] the ledger's name, or ''
--
-- Replies the number of keys that were removed; 0 also if what is here belongs to another ledger: that one's servers mend it
--
-- The same as if Redis had been emptied, for this product alone: the dataset's name changes with the marker, so that an install of a fence that was
-- raised before this is refused. Marks that can be used are kept, for they prove what is done whatever else is lost.
--
-- Where meta itself is no hash, nobody can tell whose data this is. It is taken for this ledger's: the other one could not use it either, and finds its
-- product gone as if Redis had been emptied, which costs it a resync. Left alone it would stand in the way of both for ever.
if redis.call('TYPE', KEYS[2]).ok == 'hash' then
  local ledger = redis.call('HGET', KEYS[2], 'ledger')
  if ledger and ledger ~= '' and ledger ~= ARGV[1] and ARGV[1] ~= '' then return 0 end
end
local removed = redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[6])
local marks = redis.call('TYPE', KEYS[5]).ok
if marks ~= 'zset' and marks ~= 'none' then removed = removed + redis.call('UNLINK', KEYS[5]) end
return removed
