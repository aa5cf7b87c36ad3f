-- Makes a topic without a message or a group, where it is not there.
-- KEYS: 1 stream. ARGV: 1 the name of a group that nobody has. Sent again, it does nothing more.
redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], '$', 'MKSTREAM')
return redis.call('XGROUP', 'DESTROY', KEYS[1], ARGV[1])
