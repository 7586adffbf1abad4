--[[ Looks at a task that is due and does what time demands: ends it at its deadline, at the end of
  a cancellation's grace, of a gap in its callbacks, or of its wait for a turn. Safe at any moment.

  Beside _session.lua:
  KEYS[5..8] the task's keys (_task.lua)
  ARGV[6] task id   ARGV[7] gap timeout, ms
  ARGV[8] how soon to look again at a task that is next in line, ms, and ARGV[9] further behind, so
  much more for each one before it

  Returns {state, next look (unix ms), status, reason of its cancellation, ids of tasks whose turn
  has come, ids of tasks that it interrupts}; state is
    gone         no such task
    ended        it has ended, now or earlier
    undelivered  its turn in the session has come, and it is not in a work stream yet
    waiting      for the session's earlier tasks
    open         nothing to do before the next look ]]
local task = load_task(ARGV[6], FIRST_KEY)
if not task.known then
  return { 'gone', 0, '', '', {}, {} }
end
if TERMINAL[task.status] then
  repeat_release()
  return { 'ended', 0, task.status, task.reason, released, {} }
end

local function gap_of()
  local first = task.parked_bytes > 0 and redis.call('ZRANGE', task.waiting, 0, 0, 'WITHSCORES')
  return first and first[2] and tonumber(first[2]) + tonumber(ARGV[7])
end

local rank = redis.call('ZRANK', open, task.id)
local waits = redis.call('ZSCORE', line, task.id)
if waits and rank == 0 then  -- nobody is before it
  redis.call('ZREM', line, task.id)
  waits = false
end
local gap_at = gap_of()

if task.status == 'cancelling' and (now >= task.cancel_at
    or (task.deadline and now >= task.deadline)) then
  end_cancelled(task)
elseif task.deadline and now >= task.deadline then
  end_timeout(task)
elseif (waits or not task.delivered) and now >= task.wait_until then
  end_timeout(task)
elseif gap_at and now >= gap_at then
  end_with_error(task, 'failed', 'task_failed', 'callback_gap',
    'Callbacks of the task are missing.')
end
if task.ended then
  save(task)
  commit()
  return { 'ended', 0, task.status, task.reason, released, {} }
end

if waits then
  local next_look = now + tonumber(ARGV[8]) + (rank - 1) * tonumber(ARGV[9])
  local interrupts = redis.call('HGET', task.key, 'interrupts')
  local before = interrupts and redis.call('ZRANGE', open, 0, rank - 1) or {}
  return { 'waiting', math.min(next_look, task.wait_until), task.status, '', released, before }
end
local is_backing_off = task.over and now < task.retry_at
if task.delivered ~= task.round and not is_backing_off then
  local its_end = task.delivered and task.deadline or task.wait_until
  return { 'undelivered', its_end, task.status, task.reason, released, {} }
end
local next_look = task.deadline or task.wait_until
for _, other in ipairs({ gap_at or false, task.cancel_at or false,
                         is_backing_off and task.retry_at or false }) do
  next_look = other and math.min(next_look, other) or next_look
end
return { 'open', next_look, task.status, task.reason, released, {} }
