-- Lets leases begin anew, where the deliveries are still mine.
-- KEYS: 1 stream. ARGV: 1 group, 2 me, 3.. ids.
-- Answers for each id: 1 done, 0 nobody's, -1 another's. An entry whose body is gone counts as
-- done once: nobody else can have it. Sent again, it does the same.
local out = {}
for i = 3, #ARGV do
  local owner = pending(KEYS[1], ARGV[1], ARGV[i])
  if owner == ARGV[2] then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'JUSTID')
    out[#out + 1] = 1
  else
    out[#out + 1] = owner and -1 or 0
  end
end
return out
