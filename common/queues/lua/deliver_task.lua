--[[ Adds a task to a work stream, once a round. The moment it enters starts its deadline.

  KEYS[1] work stream   KEYS[2] mark of the round (STRING: "entry-id deadline")
  ARGV[1] task id   ARGV[2] the action's JSON up to the deadline's value
  ARGV[3] timeout, ms   ARGV[4] seconds to keep the mark
  ARGV[5] deadline that the task has already, unix ms; '' in its first round
  Returns {entry id, deadline (unix ms)}, the same in every repetition. ]]
local mark = redis.call('GET', KEYS[2])
if mark then
  local entry, deadline = string.match(mark, '^(%S+) (%d+)$')
  return { entry, tonumber(deadline) }
end
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local deadline = tonumber(ARGV[5]) or now + tonumber(ARGV[3])
local digits = string.format('%.0f', deadline)
local entry = redis.call('XADD', KEYS[1], '*', 'task_id', ARGV[1], 'action', ARGV[2] .. digits .. '}')
redis.call('SET', KEYS[2], entry .. ' ' .. digits, 'EX', ARGV[4])
return { entry, deadline }
