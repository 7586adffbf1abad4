--[[ Says where a session's log stands; begins it if there is none (contract, section 4).

  Beside _session.lua nothing more.
  Returns {epoch, last offset, oldest offset kept (0: none)}. ]]
open_log()
local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
return { epoch, last, oldest and tonumber(string.match(oldest[1], '^%d+')) or 0 }
