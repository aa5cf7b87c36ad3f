-- Moves a delivery into another stream, in one step: into the dead-letter queue, the suspect lane,
-- or out of that.
-- KEYS: 1 stream, 2 records, 3 the other stream.
-- ARGV: 1 group, 2 me, 3 id, 4 member, 5 and 6 the field and value that tell this copy, 7.. fields
--       and values of the copy.
-- Answers 1 done, 0 nobody's, -1 another's. Sent again: 1 where the copy is among the last of the
-- other stream.
local owner = pending(KEYS[1], ARGV[1], ARGV[3])
if owner ~= ARGV[2] then
  if owner then
    return -1
  end
  for _, entry in ipairs(redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 100)) do
    for i = 1, #entry[2], 2 do
      if entry[2][i] == ARGV[5] and entry[2][i + 1] == ARGV[6] then
        return 1
      end
    end
  end
  return 0
end
-- Allowed out of memory, so that the copy is too. An error of the copy ends this before the ack.
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'JUSTID')
redis.call('XADD', KEYS[3], '*', unpack(ARGV, 7))
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
redis.call('HDEL', KEYS[2], ARGV[4])
forget(KEYS[1], ARGV[1], { ARGV[3] })
return 1
