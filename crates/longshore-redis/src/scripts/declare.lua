-- Makes a group with all that belongs to it, or what of it is missing.
-- KEYS: 1 stream, 2 redriven stream, 3 suspect stream, 4 settings.
-- ARGV: 1 group, 2 where it starts, 3 lease in ms, 4 retention of dead letters in ms or '',
--       5 longest delay in ms.
-- Answers { 1 }, or { 0, the retention that is set } where it is another, and nothing is changed.
-- Sent again, it does nothing more.
local found = redis.call('HGET', KEYS[4], 'retention')
if found and found ~= ARGV[4] then
  return { 0, found }
end
-- What exists already is no error; every other is.
local function make(stream, start)
  local made = redis.pcall('XGROUP', 'CREATE', stream, ARGV[1], start, 'MKSTREAM')
  if made.err and string.sub(made.err, 1, 9) ~= 'BUSYGROUP' then
    return made
  end
end
local wrong = make(KEYS[2], '0') or make(KEYS[3], '0')
if wrong then
  return wrong
end
redis.call('HSET', KEYS[4], 'lease', ARGV[3], 'retention', ARGV[4], 'longest_delay', ARGV[5])
-- Last: what is published from now on is the group's.
return make(KEYS[1], ARGV[2]) or { 1 }
