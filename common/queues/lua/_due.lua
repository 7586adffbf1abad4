--[[ look_at(due, member, at): sees to it that a member is looked at no later than a moment (unix
  ms); an earlier look stays. Behind _common.lua; takes nothing more.

  A lease (take_due.lua) is an earlier look as well, but its holder may have looked before this wish
  came up, and would settle on a later time: so the lease is marked, which makes settling fail, and
  the look is repeated when the lease ends. ]]
local function look_at(due, member, at)
  local planned = tonumber(redis.call('ZSCORE', due, member) or nil)
  if planned and planned % 1 ~= 0 then
    at = math.min(at, math.floor(planned))
  end
  return redis.call('ZADD', due, 'LT', whole(at), member)
end
