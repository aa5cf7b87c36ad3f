-- Takes what is due, and what was redriven.
-- KEYS: 1 stream, 2 redriven stream, 3 due times, 4 records, 5 settings.
-- ARGV: 1 group, 2 me, 3 who is parked, 4 how many at most.
-- Answers { lease in ms, longest delay in ms, ms until the next is due or -1,
--   { { member, fields, count, record } .. }, { members whose body is gone .. } }.
-- Where the answer is lost, what was taken is pending for me.
local room = tonumber(ARGV[4])
local now = time()
local due = {}
if room > 0 then
  due = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, room)
end
local taken, gone = {}, {}
-- First, so that an error of it leaves nothing half done.
if room > #due then
  local read = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', room - #due,
    'STREAMS', KEYS[2], '>')
  if read then
    for _, entry in ipairs(read[1][2]) do
      taken[#taken + 1] = { 'r' .. entry[1], entry[2], 1, false }
    end
  end
end
for _, member in ipairs(due) do
  local stream, id = KEYS[1], member
  if string.sub(member, 1, 1) == 'r' then
    stream, id = KEYS[2], string.sub(member, 2)
  end
  if pending(stream, ARGV[1], id) == ARGV[3] then
    local got = claim(stream, ARGV[1], ARGV[2], 0, id, nil, KEYS[4], member)
    if got then
      taken[#taken + 1] = got
    else
      gone[#gone + 1] = member
      redis.call('HDEL', KEYS[4], member)
    end
  end
  redis.call('ZREM', KEYS[3], member)
end
local first = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
local wait = -1
if first[2] then
  wait = math.max(0, first[2] - now)
end
local set = redis.call('HMGET', KEYS[5], 'lease', 'longest_delay')
return { tonumber(set[1] or -1), tonumber(set[2] or -1), wait, taken, gone }
