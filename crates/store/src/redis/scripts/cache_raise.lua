-- KEYS copies and floors in turn; ARGV the life in milliseconds, then the ranks in 20 digits.
local life = tonumber(ARGV[1])
for n = 1, #KEYS, 2 do
  local rank, floor = ARGV[1 + (n + 1) / 2], redis.call('GET', KEYS[n + 1])
  if floor and floor > rank then rank = floor end
  redis.call('SET', KEYS[n + 1], rank, 'PX', math.max(life, redis.call('PTTL', KEYS[n + 1])))
  local there = redis.call('GETRANGE', KEYS[n], 0, 19)
  if there ~= '' and there < rank then redis.call('DEL', KEYS[n]) end
end
return 1
