-- Removes a member that has nothing any more, from the streams that it reads, and from the suspect
-- lane where it holds that. One that has something stays until others have taken it.
-- KEYS: 1 settings, 2.. streams. ARGV: 1 group, 2 me.
-- Answers how many were left. Sent again, it does nothing more.
if redis.call('HGET', KEYS[1], 'holder') == ARGV[2] then
  redis.call('HDEL', KEYS[1], 'holder', 'holder_until')
end
local left = 0
for i = 2, #KEYS do
  local open = redis.call('XPENDING', KEYS[i], ARGV[1], '-', '+', 1, ARGV[2])
  if #open == 0 then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[i], ARGV[1], ARGV[2])
    left = left + 1
  end
end
return left
