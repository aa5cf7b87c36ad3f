-- What stands where in one lane of a group.
-- KEYS: 1 due times, or the first stream again where none are kept, 2.. streams. ARGV: 1 group, 2 who is parked, 3 how many to count at most
--       where the server does not know.
-- Answers { ready, in flight, waiting, id of the oldest that is ready or '', of the oldest that
--   waits or '', the time }. Changes nothing.
local ready, flying, parked = 0, 0, 0
local first, waits = '', ''
for i = 2, #KEYS do
  local found
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[i])) do
    local group = fields(info)
    if group['name'] == ARGV[1] then
      found = group
    end
  end
  if not found then
    return redis.error_reply('NOGROUP the group is not there')
  end
  local from = '(' .. found['last-delivered-id']
  local next = redis.call('XRANGE', KEYS[i], from, '+', 'COUNT', 1)[1]
  if next then
    if first == '' or upto(next[1], first) then
      first = next[1]
    end
    -- The server does not know where something was deleted ahead of the group.
    ready = ready + (found['lag'] or #redis.call('XRANGE', KEYS[i], from, '+', 'COUNT', ARGV[3]))
  end
  for _, member in ipairs(redis.call('XPENDING', KEYS[i], ARGV[1])[4] or {}) do
    if member[1] == ARGV[2] then
      parked = parked + tonumber(member[2])
      local oldest = redis.call('XPENDING', KEYS[i], ARGV[1], '-', '+', 1, ARGV[2])[1]
      if oldest and (waits == '' or upto(oldest[1], waits)) then
        waits = oldest[1]
      end
    else
      flying = flying + tonumber(member[2])
    end
  end
end
local now = time()
local due = parked
if KEYS[1] ~= KEYS[2] then
  due = math.min(parked, #redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 10000))
end
if due > 0 and (first == '' or upto(waits, first)) then
  first = waits
end
if parked == due then
  waits = ''
end
return { ready + due, flying, parked - due, first, waits, now }
