-- What of a stream the group has not settled, oldest first.
-- KEYS: 1 stream, 2 records. ARGV: 1 group, 2 from where, 3 how many to look at, 4 the prefix of
-- members.
-- Answers { where to go on or '-', { { member, fields, count, record } .. } }. Changes nothing.
local last
for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = fields(info)
  if group['name'] == ARGV[1] then
    last = group['last-delivered-id']
  end
end
if not last then
  return redis.error_reply('NOGROUP the group is not there')
end
local page = redis.call('XRANGE', KEYS[1], ARGV[2], '+', 'COUNT', ARGV[3])
local out = {}
for _, entry in ipairs(page) do
  local owner, _, count = pending(KEYS[1], ARGV[1], entry[1])
  if owner or not upto(entry[1], last) then
    local member = ARGV[4] .. entry[1]
    out[#out + 1] = { member, entry[2], count or 0, redis.call('HGET', KEYS[2], member) }
  end
end
if #page < tonumber(ARGV[3]) then
  return { '-', out }
end
return { '(' .. page[#page][1], out }
