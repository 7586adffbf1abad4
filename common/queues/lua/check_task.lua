--[[ Looks at a task that is due and does what time demands: ends it at its deadline, at the end of
  a cancellation's grace, or of a gap in its callbacks. Safe to call at any moment.

  Beside _session.lua:
  KEYS[4..7] the task's keys (_task.lua)
  ARGV[6] task id   ARGV[7] gap timeout, ms

  Returns {state, next look (unix ms), status}; state is
    gone      no such task         ended   it has ended, now or earlier
    undelivered  it is not in a work stream yet      open   nothing to do before the next look ]]
local task = load_task(ARGV[6], FIRST_KEY)
if not task.known then
  return { 'gone', 0, '' }
end
if TERMINAL[task.status] then
  return { 'ended', 0, task.status }
end

local gap_at
if task.parked_bytes > 0 then
  local first = redis.call('ZRANGE', task.waiting, 0, 0, 'WITHSCORES')
  gap_at = first[2] and tonumber(first[2]) + tonumber(ARGV[7])
end

if task.status == 'cancelling' and (now >= task.cancel_at
    or (task.deadline and now >= task.deadline)) then
  end_cancelled(task)
elseif task.deadline and now >= task.deadline then
  end_timeout(task)
elseif gap_at and now >= gap_at then
  end_with_error(task, 'failed', 'task_failed', 'callback_gap',
    'Callbacks of the task are missing.')
end
if task.ended then
  save(task)
  commit()
  return { 'ended', 0, task.status }
end
if not task.deadline then
  return { 'undelivered', 0, task.status }
end
local next_look = math.min(task.deadline, gap_at or task.deadline, task.cancel_at or task.deadline)
return { 'open', next_look, task.status }
