--[[ Notes that an instance lives, and forgets those that do not. Behind _common.lua.

  KEYS[1] instances (ZSET, by time of the last beat)   KEYS[2] what each holds (HASH, JSON)
  ARGV[1] dead after, ms   ARGV[2] instance id   ARGV[3] what it holds, JSON
  Returns what each living instance holds. ]]
redis.call('ZADD', KEYS[1], now, ARGV[2])
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
for _, dead in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[1]))) do
  redis.call('ZREM', KEYS[1], dead)
  redis.call('HDEL', KEYS[2], dead)
end
return redis.call('HVALS', KEYS[2])
