-- KEYS[1] the bucket as take.lua keeps it; ARGV as there. Answers 0.
local limit, form, time = ARGV[1], ARGV[2], tonumber(ARGV[4])
if redis.call('LINDEX', KEYS[1], 0) == limit and redis.call('LLEN', KEYS[1]) > 1 then
  if form == 'bucket' then
    local full = tonumber(redis.call('LINDEX', KEYS[1], 1)) - time
    redis.call('LSET', KEYS[1], 1, string.format('%.0f', math.max(full, 0)))
  else
    redis.call('LPOP', KEYS[1])
    redis.call('LSET', KEYS[1], 0, limit)
  end
end
return 0
