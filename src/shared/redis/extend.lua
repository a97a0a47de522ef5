-- KEYS: record, lease. ARGV: owner:fence, ttl in ms. Answers 1 if the lease is this one.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return 0
end
return redis.call('PEXPIRE', KEYS[2], ARGV[2])
