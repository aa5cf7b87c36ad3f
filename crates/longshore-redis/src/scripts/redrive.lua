-- Moves a letter back to its group, in one step.
-- KEYS: 1 dead-letter queue, 2 redriven stream. ARGV: 1 id, 2.. fields and values of the copy.
-- Answers 1 done, 0 it is not there any more: another redrive was first, or this one, sent before.
if #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1], 'COUNT', 1) == 0 then
  return 0
end
redis.call('XADD', KEYS[2], '*', unpack(ARGV, 2))
redis.call('XDEL', KEYS[1], ARGV[1])
return 1
