-- Deletes what all groups are done with and no settlement of ours deleted: another program's acks,
-- and what a group left that was destroyed.
-- KEYS: 1 stream. ARGV: 1 from where, 2 how many to look at.
-- Answers where to go on; '-' at the end.
local page = redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])
if #page == 0 then
  return '-'
end
local ids = {}
for i, entry in ipairs(page) do
  ids[i] = entry[1]
end
-- No group has this name, so each id is looked at.
local count = forget(KEYS[1], '', ids)
if count == 0 and #page < tonumber(ARGV[2]) then
  return '-'
end
return '(' .. ids[#ids]
