--[[ What most scripts want: Redis's own clock, in micros and now (µs and ms since 1970), how it is
  written, and which statuses end a task. Takes nothing more. ]]
local clock = redis.call('TIME')
local micros = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local now = math.floor(micros / 1000)
local DAY = 86400000  -- ms; days of UTC are counted from 1970

local TERMINAL = { completed = true, failed = true, cancelled = true, timeout = true }

local function whole(number)
  return string.format('%.0f', number)
end
