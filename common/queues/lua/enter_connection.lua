--[[ Gives a connection its place among those of its tenant and of its address; put behind _common.lua.

  KEYS[1] bad handshakes of the address within its minute (STRING, a number)
  KEYS[2…] connections of the tenant, and of the address (ZSET: id, by the end of its lease, unix ms)
  ARGV[1] connection id   ARGV[2] lease, ms
  ARGV[3] bad handshakes from which on the address is kept out (empty: however many)
  ARGV[4…] how many connections each of the sets may hold
  Returns {0} if it is in; {-1, ms to wait} if the address is kept out; {n} if the nth set is full.

  It is in all sets or in none. Run again, it changes nothing: who has a place keeps it. ]]
local id, lease, bad = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local FIRST_SET, FIRST_LIMIT = 2, 4

if bad and tonumber(redis.call('GET', KEYS[1]) or 0) >= bad then
  return { -1, redis.call('PTTL', KEYS[1]) }
end
for i = FIRST_SET, #KEYS do
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now)
  local limit = tonumber(ARGV[FIRST_LIMIT + i - FIRST_SET])
  if redis.call('ZCARD', KEYS[i]) >= limit and not redis.call('ZSCORE', KEYS[i], id) then
    return { i - FIRST_SET + 1 }
  end
end
for i = FIRST_SET, #KEYS do
  redis.call('ZADD', KEYS[i], now + lease, id)
  redis.call('PEXPIRE', KEYS[i], lease)
end
return { 0 }
