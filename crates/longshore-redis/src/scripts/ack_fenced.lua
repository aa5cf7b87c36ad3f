-- Settles deliveries for good, with their records, where they are still mine.
-- KEYS: 1 stream, 2 records. ARGV: 1 group, 2 me, 3 the prefix of members, 4.. ids.
-- Answers for each id: 1 done, 0 nobody's, -1 another's. Sent again: 0.
local out, ids = {}, {}
for i = 4, #ARGV do
  local owner = pending(KEYS[1], ARGV[1], ARGV[i])
  if owner == ARGV[2] then
    redis.call('XACK', KEYS[1], ARGV[1], ARGV[i])
    redis.call('HDEL', KEYS[2], ARGV[3] .. ARGV[i])
    ids[#ids + 1] = ARGV[i]
    out[#out + 1] = 1
  else
    out[#out + 1] = owner and -1 or 0
  end
end
if #ids > 0 then
  forget(KEYS[1], ARGV[1], ids)
end
return out
