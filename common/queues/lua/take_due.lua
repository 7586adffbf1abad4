--[[ Leases what is due: moves each item's time on, so that no other instance takes it meanwhile,
  and it comes back by itself should this one die. Behind _common.lua.

  KEYS[1] due times (ZSET)   ARGV[1] lease, ms   ARGV[2] items at the most
  Returns {leased until (unix ms), member, …}. The time of a leased item ends in half a millisecond,
  by which schedule.lua and settle_due.lua know it. ]]
local leased = whole(now + tonumber(ARGV[1]))
local taken = { tonumber(leased) }
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])) do
  redis.call('ZADD', KEYS[1], 'XX', leased .. '.5', member)
  taken[#taken + 1] = member
end
return taken
