-- KEYS the sets of what ends, living and dead in turn for each kind; ARGV prefix, now, how many at most, the kinds.
-- Answers how many were looked at, and how many were removed.
local prefix, now, bite = ARGV[1], ARGV[2], tonumber(ARGV[3])
local seen, removed = 0, 0
for n, ending in ipairs(KEYS) do
  local kind = ARGV[3 + math.ceil(n / 2)]
  if seen >= bite then break end
  for _, place in ipairs(redis.call('ZRANGEBYSCORE', ending, '-inf', now, 'LIMIT', 0, bite - seen)) do
    seen = seen + 1
    local value = redis.call('GET', prefix .. place)
    local record = value and read(value)
    if not record then
      redis.call('ZREM', ending, place)
    elseif record.expires == '-' or tonumber(record.expires) > tonumber(now) then
      redis.call('ZREM', ending, place)
      local set = indexes(prefix, kind, record)
      for name, score in pairs(set) do redis.call('ZADD', name, score, place) end
    else
      redis.call('DEL', prefix .. place)
      for name in pairs(indexes(prefix, kind, record)) do redis.call('ZREM', name, place) end
      redis.call('ZREM', ending, place)
      removed = removed + 1
    end
  end
end
return {seen, removed}
