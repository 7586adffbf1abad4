--[[ Sees to it that a task is looked at no later than a moment; an earlier look stays. Behind
  _common.lua and _due.lua.

  KEYS[1] due times (ZSET)
  ARGV[1] member   ARGV[2] 'at' or 'in'   ARGV[3] unix ms, or ms from now
  Returns nothing of interest. ]]
local at = tonumber(ARGV[3])
return look_at(KEYS[1], ARGV[1], ARGV[2] == 'in' and now + at or at)
