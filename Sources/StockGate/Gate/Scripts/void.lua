-- void: serve a product no longer, until an install makes it exact again. A recovery that cannot install it now says so to every server.
--
-- KEYS[1] meta     hash: stamp, ledger
-- ARGV[1] the ledger's name, or ''
--
-- Replies 1 if it was served until now, or might have been; 0 if there was nothing to void, or if what is here belongs to another ledger and is left alone
--
-- Only the stamp goes, as after a restart from a copy: reserves are told *not loaded*, and fence, counter, reservations, what is owed and the marks
-- stay for the messages that are under way.
local ledger = redis.call('HGET', KEYS[1], 'ledger')
if ledger and ledger ~= '' and ledger ~= ARGV[1] and ARGV[1] ~= '' then return 0 end
return redis.call('HDEL', KEYS[1], 'stamp')
