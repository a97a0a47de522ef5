-- KEYS: record. ARGV: version, revision, next revision, owner, payload, channel, key.
-- Returns {1}, or {0} and the fields of the current record.
local record = redis.call('HMGET', KEYS[1], 'v', 'r', 'e', 'i', 'o', 'p')
if record[1] ~= ARGV[1] or record[2] ~= ARGV[2] or record[3] ~= '0' then
  return {0, record[1], record[2], record[3], record[4], record[5], record[6]}
end
redis.call('HSET', KEYS[1], 'r', ARGV[3], 'o', ARGV[4], 'p', ARGV[5])
redis.call('PUBLISH', ARGV[6], ARGV[1] .. ' ' .. ARGV[3] .. ' 0 ' .. ARGV[4] .. ' ' .. ARGV[7])
return {1}
