-- KEYS: record, lease. ARGV: owner:token, ttl in ms. Returns 1 if the lease has this token, or else 0.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return 0
end
return redis.call('PEXPIRE', KEYS[2], ARGV[2])
