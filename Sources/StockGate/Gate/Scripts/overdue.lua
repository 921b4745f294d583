-- overdue: one bounded step of the sweep. Is a reservation pending for longer than a bound, and how old is the oldest one?
--
-- KEYS[1] pending   ARGV[1] cursor, 0 to begin   ARGV[2] now, milliseconds   ARGV[3] the bound, milliseconds
--
-- A reservation whose time is further ahead than the bound is overdue as well: a server with a wrong clock made it, and nobody would look at it for as long
-- as its clock was ahead.
--
-- Replies {next cursor as a string, number of overdue reservations seen in this step, time of the oldest one seen in milliseconds or 0 for none}
local step = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', 200)
local overdue, oldest = 0, 0
for i = 2, #step[2], 2 do
  local time = tonumber((string.match(step[2][i], '^%d+:%d+:(%d+)')))
  if math.abs(ARGV[2] - time) > tonumber(ARGV[3]) then overdue = overdue + 1 end
  if oldest == 0 or time < oldest then oldest = time end
end
return {step[1], overdue, oldest}
