-- What is pending for me in one stream: ids and counts, from a place on.
-- KEYS: 1 stream. ARGV: 1 group, 2 me, 3 from where, 4 how many at most.
-- Answers { id, count, id, count .. }. Changes nothing.
local out = {}
for _, entry in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], '+', ARGV[4], ARGV[2])) do
  out[#out + 1] = entry[1]
  out[#out + 1] = entry[4]
end
return out
