-- Makes anew what somebody deleted of a group. It reads from the start then: duplicates, not loss.
-- KEYS: 1 stream, 2 redriven stream, 3 suspect stream, 4 settings.
-- ARGV: 1 group, 2 lease in ms, 3 retention of dead letters in ms or '', 4 longest delay in ms.
-- Answers how many streams had no such group. Sent again: 0.
local count = 0
for i = 1, 3 do
  local made = redis.pcall('XGROUP', 'CREATE', KEYS[i], ARGV[1], '0', 'MKSTREAM')
  if not made.err then
    count = count + 1
  elseif string.sub(made.err, 1, 9) ~= 'BUSYGROUP' then
    return made
  end
end
if not redis.call('HGET', KEYS[4], 'lease') then
  redis.call('HSET', KEYS[4], 'lease', ARGV[2], 'retention', ARGV[3], 'longest_delay', ARGV[4])
end
return count
