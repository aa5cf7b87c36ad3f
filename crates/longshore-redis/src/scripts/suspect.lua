-- Takes the next of the suspect lane, for its holder: one message at a time in the whole group.
-- KEYS: 1 suspect stream, 2 settings, 3 records.
-- ARGV: 1 group, 2 me, 3 who is parked, 4 the lease where none is set, 5 how many I want (0, 1),
--       6 how many I have (0, 1).
-- Answers { lease in ms, longest delay in ms, { { member, fields, count, record } },
--   { members whose body is gone .. } }. Where the answer is lost, the next call takes it again.
local set = redis.call('HMGET', KEYS[2], 'lease', 'longest_delay', 'holder', 'holder_until')
local lease, longest = tonumber(set[1] or ARGV[4]), tonumber(set[2] or -1)
local now = time()
local taken, gone = {}, {}
if set[3] and set[3] ~= ARGV[2] and tonumber(set[4] or 0) > now then
  return { lease, longest, taken, gone }
end
-- Allowed out of memory, so that what follows is too.
redis.call('HDEL', KEYS[2], '~')
if ARGV[5] == '0' and ARGV[6] == '0' then
  if set[3] then
    redis.call('HDEL', KEYS[2], 'holder', 'holder_until')
  end
  return { lease, longest, taken, gone }
end
redis.call('HSET', KEYS[2], 'holder', ARGV[2], 'holder_until', now + lease)
if ARGV[6] ~= '0' then
  return { lease, longest, taken, gone }
end
local open = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 100)
for _, entry in ipairs(open) do
  if entry[2] ~= ARGV[3] and entry[2] ~= ARGV[2] and entry[3] < lease then
    return { lease, longest, taken, gone }
  end
end
for _, entry in ipairs(open) do
  -- Mine, and I do not know of it: the answer that brought it was lost.
  local count = entry[2] == ARGV[2] and entry[3] < lease and entry[4] or nil
  local got = claim(KEYS[1], ARGV[1], ARGV[2], 0, entry[1], count, KEYS[3], 's' .. entry[1])
  if got then
    return { lease, longest, { got }, gone }
  end
  gone[#gone + 1] = 's' .. entry[1]
  redis.call('HDEL', KEYS[3], 's' .. entry[1])
end
local read = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', 1, 'STREAMS', KEYS[1], '>')
if read then
  local entry = read[1][2][1]
  taken[1] = { 's' .. entry[1], entry[2], 1, false }
end
return { lease, longest, taken, gone }
