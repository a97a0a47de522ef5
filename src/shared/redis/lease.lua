-- KEYS: record, lease. ARGV: owner, ttl in ms. Returns {1, token} or {0, ms left}.
local left = redis.call('PTTL', KEYS[2])
if left >= 0 then
  return {0, left}
end
local token = redis.call('HINCRBY', KEYS[1], 'f', 1)
redis.call('SET', KEYS[2], ARGV[1] .. ':' .. token, 'PX', ARGV[2])
return {1, token}
