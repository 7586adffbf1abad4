--[[ Sees to it that a task is looked at no later than a moment; an earlier look stays.

  KEYS[1] due times (ZSET)
  ARGV[1] member   ARGV[2] 'at' or 'in'   ARGV[3] unix ms, or ms from now
  Returns nothing of interest.

  A lease (take_due.lua) is an earlier look as well, but its holder may have looked before this wish
  came up, and would settle on a later time: so the lease is marked, which makes settling fail, and
  the look is repeated when the lease ends. ]]
local at = tonumber(ARGV[3])
if ARGV[2] == 'in' then
  local clock = redis.call('TIME')
  at = at + tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
end
local planned = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or nil)
if planned and planned % 1 ~= 0 then
  at = math.min(at, math.floor(planned))
end
return redis.call('ZADD', KEYS[1], 'LT', string.format('%.0f', at), ARGV[1])
