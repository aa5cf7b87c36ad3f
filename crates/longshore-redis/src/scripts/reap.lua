-- Takes what was held for longer than the lease, by whomever; never what is parked. Repairs what is
-- parked without a due time. Removes members that have nothing and were not seen for long.
-- KEYS: 1 stream, 2 redriven stream, 3 due times, 4 records, 5 settings.
-- ARGV: 1 group, 2 me, 3 who is parked, 4 how many at most, 5 the lease where none is set,
--       6 after how many ms a member without deliveries is removed, 7 and 8 where the repair goes
--       on in the two streams.
-- Answers { { { member, fields, count, record } .. }, { members whose body is gone .. },
--   where the next repair goes on in each stream }.
local lease = tonumber(redis.call('HGET', KEYS[5], 'lease') or ARGV[5])
local room = tonumber(ARGV[4])
local taken, gone, cursors = {}, {}, {}
-- Allowed out of memory, so that what follows is too.
redis.call('HDEL', KEYS[5], '~')
for index = 1, 2 do
  local stream, prefix = KEYS[index], index == 2 and 'r' or ''
  for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', stream, ARGV[1])) do
    local member = fields(info)
    if member['name'] ~= ARGV[3] then
      if member['pending'] > 0 and room > 0 then
        local late = redis.call('XPENDING', stream, ARGV[1], 'IDLE', lease, '-', '+', room,
          member['name'])
        for _, entry in ipairs(late) do
          local got = claim(stream, ARGV[1], ARGV[2], lease, entry[1], nil, KEYS[4],
            prefix .. entry[1])
          if got then
            taken[#taken + 1] = got
            room = room - 1
          elseif not pending(stream, ARGV[1], entry[1]) then
            gone[#gone + 1] = prefix .. entry[1]
            redis.call('HDEL', KEYS[4], prefix .. entry[1])
          end
        end
      elseif member['pending'] == 0 and member['name'] ~= ARGV[2]
        and member['idle'] > tonumber(ARGV[6]) then
        redis.call('XGROUP', 'DELCONSUMER', stream, ARGV[1], member['name'])
      end
    end
  end
  local from = ARGV[6 + index]
  local parked = redis.call('XPENDING', stream, ARGV[1], from, '+', 100, ARGV[3])
  for _, entry in ipairs(parked) do
    if not redis.call('ZSCORE', KEYS[3], prefix .. entry[1]) then
      redis.call('ZADD', KEYS[3], time(), prefix .. entry[1])
    end
  end
  cursors[index] = #parked == 100 and '(' .. parked[100][1] or '-'
end
return { taken, gone, cursors[1], cursors[2] }
