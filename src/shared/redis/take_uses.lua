-- KEYS: record. ARGV: version, wanted uses, limit. Returns {granted, total}.
local record = redis.call('HMGET', KEYS[1], 'v', 'u')
local limit = tonumber(ARGV[3])
if record[1] ~= ARGV[1] then
  return {0, limit}
end
local used = tonumber(record[2] or '0')
local granted = math.max(0, math.min(tonumber(ARGV[2]), limit - used))
if granted == 0 then
  return {0, used}
end
return {granted, redis.call('HINCRBY', KEYS[1], 'u', granted)}
