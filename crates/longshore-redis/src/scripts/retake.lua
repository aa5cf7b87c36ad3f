-- Takes what is mine again, because the answer that brought it was lost. That is no hand-over.
-- KEYS: 1 stream, 2 records. ARGV: 1 group, 2 me, 3 the prefix of members, 4.. ids.
-- Answers { { { member, fields, count, record } .. }, { members whose body is gone .. } }. Sent
-- again, it answers the same.
local taken, gone = {}, {}
for i = 4, #ARGV do
  local owner, _, count = pending(KEYS[1], ARGV[1], ARGV[i])
  if owner == ARGV[2] then
    local member = ARGV[3] .. ARGV[i]
    local got = claim(KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], count, KEYS[2], member)
    if got then
      taken[#taken + 1] = got
    else
      gone[#gone + 1] = member
      redis.call('HDEL', KEYS[2], member)
    end
  end
end
return { taken, gone }
