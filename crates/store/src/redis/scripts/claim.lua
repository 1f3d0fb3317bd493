-- KEYS[1] what is due; ARGV prefix, kind, until when due, how many, moved to when. Answers place, due_at and value of
-- each, one after the other.
local prefix, kind, due_before, limit, due_at = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local claimed = {}
for _, place in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', due_before, 'LIMIT', 0, limit)) do
  local value = redis.call('GET', prefix .. place)
  local record = value and read(value)
  if not record or record.dead or record.due == '-' then
    redis.call('ZREM', KEYS[1], place)
  elseif tonumber(record.due) > tonumber(due_before) then
    redis.call('ZADD', KEYS[1], record.due, place)
  else
    local moved = string.gsub(value, '^(%S+ %S+ %S+ %S+ )%S+', '%1' .. due_at, 1)
    redis.call('ZADD', KEYS[1], due_at, place)
    redis.call('SET', prefix .. place, moved)
    claimed[#claimed + 1] = place
    claimed[#claimed + 1] = record.due
    claimed[#claimed + 1] = moved
  end
end
return claimed
