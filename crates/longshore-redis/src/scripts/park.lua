-- Puts a delivery back for the group, to be taken when a time is over: a retry, or a release.
-- KEYS: 1 stream, 2 due times, 3 records.
-- ARGV: 1 group, 2 me, 3 who is parked, 4 id, 5 member, 6 delay in ms, or '' where no due times are kept,
--       7 the count from now on, or '' to keep it, 8 the record, or '' to keep it.
-- Answers 1 done, 2 its body is gone and it is settled, 0 nobody's, -1 another's. Sent again: 1 as
-- long as it waits with this record.
local owner = pending(KEYS[1], ARGV[1], ARGV[4])
if owner ~= ARGV[2] then
  if owner == ARGV[3] and ARGV[8] ~= '' and redis.call('HGET', KEYS[3], ARGV[5]) == ARGV[8] then
    return 1
  end
  return owner and -1 or 0
end
local call = { 'XCLAIM', KEYS[1], ARGV[1], ARGV[3], 0, ARGV[4] }
if ARGV[7] ~= '' then
  call[#call + 1] = 'RETRYCOUNT'
  call[#call + 1] = ARGV[7]
end
call[#call + 1] = 'JUSTID'
if #redis.call(unpack(call)) == 0 then
  redis.call('HDEL', KEYS[3], ARGV[5])
  return 2
end
if ARGV[8] ~= '' then
  redis.call('HSET', KEYS[3], ARGV[5], ARGV[8])
end
if ARGV[6] ~= '' then
  local due = time()
  if ARGV[6] ~= '0' then
    -- One more, since the time is cut to milliseconds: never early.
    due = due + 1 + ARGV[6]
  end
  redis.call('ZADD', KEYS[2], due, ARGV[5])
end
return 1
