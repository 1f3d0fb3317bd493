-- KEYS[1] the bucket, a list that begins with its limit; ARGV the limit, 'bucket' or 'window', how many, and in how
-- many microseconds: one comes back, or the window lasts. Answers 0, or the microseconds to wait.
local limit, form, count, time = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local function digits(number) return string.format('%.0f', number) end
if redis.call('LINDEX', KEYS[1], 0) ~= limit then
  redis.call('DEL', KEYS[1])
  redis.call('RPUSH', KEYS[1], limit)
end
local wait = 0
local lasts = time
if form == 'bucket' then
  -- When the bucket will be full again; a clock that went back does not make that longer than it can be.
  local full = math.min(tonumber(redis.call('LINDEX', KEYS[1], 1) or '0'), now + count * time)
  full = math.max(full, now) + time
  wait = full - now - count * time
  if wait <= 0 then
    redis.call('LTRIM', KEYS[1], 0, 0)
    redis.call('RPUSH', KEYS[1], digits(full))
  end
  lasts = count * time
elseif redis.call('LLEN', KEYS[1]) <= count then
  redis.call('RPUSH', KEYS[1], digits(now))
else
  wait = math.min(tonumber(redis.call('LINDEX', KEYS[1], 1)) + time - now, time)
  if wait <= 0 then
    redis.call('LPOP', KEYS[1])
    redis.call('LSET', KEYS[1], 0, limit)
    redis.call('RPUSH', KEYS[1], digits(now))
  end
end
if wait <= 0 then
  redis.call('PEXPIRE', KEYS[1], digits(math.ceil(lasts / 1000) + 1))
  return 0
end
return digits(wait)
