-- KEYS: record, lease. ARGV: owner:token. Returns 1 if the lease has this token, or else 0.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'i', '1')
return 1
