-- Removes letters that are older than the group keeps them.
-- KEYS: 1 dead-letter queue, 2 settings. Answers how many; a hundred: ask again.
local kept = tonumber(redis.call('HGET', KEYS[2], 'retention') or '')
if not kept then
  return 0
end
local latest = time() - kept
if latest < 0 then
  return 0
end
local old = redis.call('XRANGE', KEYS[1], '-', string.format('%.0f', latest), 'COUNT', 100)
for _, entry in ipairs(old) do
  redis.call('XDEL', KEYS[1], entry[1])
end
return #old
