-- KEYS: record, lease. ARGV: expected version, new version, token or '', owner, ended 0 or 1, payload, channel, key,
-- interrupted 0 or 1.
-- Returns {1}, or {0} and the fields of the current record.
local record = redis.call('HMGET', KEYS[1], 'v', 'r', 'e', 'i', 'o', 'p', 'f')
local is_late = ARGV[3] ~= '' and tonumber(ARGV[3]) < tonumber(record[7] or '0')
if is_late or (record[1] or '0') ~= ARGV[1] then
  return {0, record[1], record[2], record[3], record[4], record[5], record[6]}
end
local is_interrupted = (ARGV[9] == '1' or ARGV[3] == '' and record[4] == '1') and '1' or '0'
redis.call('HSET', KEYS[1], 'v', ARGV[2], 'r', '0', 'e', ARGV[5], 'i', is_interrupted, 'o', ARGV[4], 'p', ARGV[6], 'u', '0')
if ARGV[3] ~= '' and redis.call('GET', KEYS[2]) == ARGV[4] .. ':' .. ARGV[3] then
  redis.call('DEL', KEYS[2])
end
redis.call('PUBLISH', ARGV[7], ARGV[2] .. ' 0 ' .. ARGV[5] .. ' ' .. ARGV[4] .. ' ' .. ARGV[8])
return {1}
