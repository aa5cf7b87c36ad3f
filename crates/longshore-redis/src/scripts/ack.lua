-- Settles deliveries for good, without asking whose they are: for a lease that is valid by the
-- local clock, and messages without a record.
-- KEYS: 1 stream. ARGV: 1 group, 2.. ids.
-- Answers how many were pending. Sent again, it does nothing more.
local ids = { unpack(ARGV, 2) }
local count = redis.call('XACK', KEYS[1], ARGV[1], unpack(ids))
forget(KEYS[1], ARGV[1], ids)
return count
