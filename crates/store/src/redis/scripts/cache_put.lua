-- KEYS the copy and its floor; ARGV the rank in 20 digits, the value (rank and copy), its life in milliseconds.
-- Ranks have one length, so that texts compare like the numbers, which Lua would round.
local floor = redis.call('GET', KEYS[2])
if floor and floor > ARGV[1] then return 0 end
local there = redis.call('GETRANGE', KEYS[1], 0, 19)
if there ~= '' and there > ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
