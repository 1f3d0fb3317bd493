-- KEYS[1] the record; ARGV prefix, kind, place, 'A' (absent) or 'V' and a version, the value. Answers 1 or 0.
-- The record is written after all that can fail: an error means that it was not.
local prefix, kind, place, expected, value = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local there = redis.call('GET', KEYS[1])
local old = there and read(there)
if there and not old then return redis.error_reply('NORECORD the value at a key of the store is no record') end
if expected == 'A' then
  if old and not old.dead then return 0 end
elseif not old or expected ~= 'V' .. old.version then
  return 0
end
local before = old and indexes(prefix, kind, old) or {}
local after = indexes(prefix, kind, read(value))
for set, score in pairs(after) do
  if before[set] ~= score then redis.call('ZADD', set, score, place) end
end
redis.call('SET', KEYS[1], value)
for set in pairs(before) do
  if not after[set] then redis.pcall('ZREM', set, place) end
end
return 1
