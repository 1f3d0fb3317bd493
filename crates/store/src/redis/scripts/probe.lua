-- KEYS[1] a key of nobody's. Does what the other scripts do, so that a user who may not is refused at the start.
redis.call('SET', KEYS[1], 'probe', 'PX', 10000)
redis.call('GET', KEYS[1])
redis.call('DEL', KEYS[1])
redis.call('ZADD', KEYS[1], 1, 'probe')
redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', 0, 'LIMIT', 0, 1)
redis.call('ZREM', KEYS[1], 'probe')
return 1
