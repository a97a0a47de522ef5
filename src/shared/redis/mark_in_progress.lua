-- KEYS: record, lease. ARGV: owner:fence. Answers 1 if the lease is this one.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'i', '1')
return 1
