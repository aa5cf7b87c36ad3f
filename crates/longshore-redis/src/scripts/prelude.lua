-- Shared by all scripts; put before each of them.
--
-- Out of memory, a script's first write is refused where it may grow a key, and after a write that
-- is allowed all later ones pass. So each script begins its writes with one that is allowed.

-- The server's time in milliseconds.
local function time()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- Who has an entry, since when (milliseconds), and how often it was handed over; nil: nobody.
local function pending(stream, group, id)
  local found = redis.call('XPENDING', stream, group, id, id, 1)[1]
  if found then
    return found[2], found[3], found[4]
  end
end

-- Whether one entry id is before another or the same. They are longer than a number is exact.
local function upto(a, b)
  local am, as = string.match(a, '^(%d+)-(%d+)$')
  local bm, bs = string.match(b, '^(%d+)-(%d+)$')
  if am == bm then
    am, bm = as, bs
  end
  if #am ~= #bm then
    return #am < #bm
  end
  return am <= bm
end

-- A flat list of names and values as a table.
local function fields(flat)
  local out = {}
  for i = 1, #flat, 2 do
    out[flat[i]] = flat[i + 1]
  end
  return out
end

-- Deletes those entries that no group has pending or has still to read. It looks at the groups in
-- this very call: one that was added meanwhile loses nothing.
local function forget(stream, group, ids)
  local groups = redis.call('XINFO', 'GROUPS', stream)
  for i = 1, #groups do
    groups[i] = fields(groups[i])
  end
  if #groups == 1 and groups[1]['name'] == group then
    return redis.call('XDEL', stream, unpack(ids))
  end
  if #groups == 0 then
    return 0
  end
  local done = {}
  for _, id in ipairs(ids) do
    local wanted = false
    for _, other in ipairs(groups) do
      if not upto(id, other['last-delivered-id']) or pending(stream, other['name'], id) then
        wanted = true
        break
      end
    end
    if not wanted then
      done[#done + 1] = id
    end
  end
  if #done == 0 then
    return 0
  end
  return redis.call('XDEL', stream, unpack(done))
end

-- Hands an entry over to `me`: its id, fields, count and record; nil where its body is gone, and
-- then it is nobody's any more. `idle` fences it, `count` replaces its count.
local function claim(stream, group, me, idle, id, count, record, member)
  local got
  if count then
    got = redis.call('XCLAIM', stream, group, me, idle, id, 'RETRYCOUNT', count)
  else
    got = redis.call('XCLAIM', stream, group, me, idle, id)
  end
  if not got[1] or not got[1][2] then
    return nil
  end
  local _, _, now = pending(stream, group, id)
  return { member, got[1][2], now or 1, redis.call('HGET', record, member) }
end
