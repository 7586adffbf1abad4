--[[ Applies the callbacks of one session, as the contract's rules of delivery say (section 5).

  Beside _session.lua:
  KEYS[5..]  four keys a task (_task.lua)
  ARGV[6] number of tasks   ARGV[7] gap timeout, ms
  ARGV[8] callbacks, ARGV[9] bytes that may wait for a task's gap
  ARGV[10] callbacks in this call   ARGV[11] attempts a task may have
  ARGV[12], ARGV[13] backoff of the first retry and at the most, ms; it doubles
  ARGV[14] rules that a test has switched off, to see that it is noticed: '' but for tests
  then the ids of the tasks, then for each callback six:
    task (1..), attempt, seq, kind, data (JSON), extra
  kinds: started delta event progress typing completed failed retry cancelled
         dead (set aside, counts as received)   dead_end (the same, and ends the task as failed)
  extra: delta: its text; progress: the number; completed: the usage, JSON, or '', and
         data without `response` is marked by a '-' in front of the usage;
         retry: the error that ends the task if its attempts are used up; dead_end: the reason

  Returns {outcomes, gaps, ended, retries, released}: for each callback one of applied, parked,
  duplicate, stale, late, unknown; for each task when its gap times out (unix ms, 0: no gap), and 1
  where it has ended, 2 where it was ended here and its workers have to be told, and {when it is to
  be tried again (unix ms, 0: it is not, or has entered a work stream again), id of its old entry};
  the ids of tasks whose turn has come. ]]
local task_count, gap_timeout = tonumber(ARGV[6]), tonumber(ARGV[7])
local max_parked, max_parked_bytes = tonumber(ARGV[8]), tonumber(ARGV[9])
local callback_count, max_attempts = tonumber(ARGV[10]), tonumber(ARGV[11])
local first_backoff, max_backoff = tonumber(ARGV[12]), tonumber(ARGV[13])
local switched_off = ARGV[14]
local OWN_ARGS = 14

local tasks = {}
for i = 1, task_count do
  tasks[i] = load_task(ARGV[OWN_ARGS + i], FIRST_KEY + (i - 1) * 4)
end

local function run_on(task)
  if task.status == 'queued' then
    set_status(task, 'running')
    set(task, 'started', whole(now))
  end
end

local handle = {}

function handle.started(task, callback)
  local resets = task.attempt > 1 and callback.seq == 1  -- that update has been told already
  if not resets then
    tell_status(task, 'running', ',"attempt":' .. whole(task.attempt))
  end
end

function handle.delta(task, callback)
  append('agent_delta', callback.data, task.id)
  task.streamed[#task.streamed + 1] = callback.extra
end

function handle.event(task, callback)
  append('agent_event', callback.data, task.id)
end

function handle.progress(task, callback)
  append('task_update', callback.data, task.id)
  set(task, 'progress', callback.extra)
end

function handle.typing(task)
  announce('typing_indicator', '{"agent_id":"' .. task.agent_id .. '"}', task.id)
end

function handle.completed(task, callback)
  local data, usage = callback.data, callback.extra
  if string.sub(usage, 1, 1) == '-' then  -- no response of its own: what was streamed is it
    usage = string.sub(usage, 2)
    local text = (redis.call('GET', task.text) or '') .. table.concat(task.streamed)
    local rest = string.match(data, '^{%s*(.*)$')
    local comma = rest == '}' and '' or ','
    data = '{"response":' .. cjson.encode(text) .. comma .. rest
  end
  end_task(task, 'completed')
  set(task, 'result', data)
  if usage ~= '' then
    set(task, 'usage', usage)
  end
  append('agent_response', data, task.id)
end

function handle.failed(task, callback)
  end_task(task, 'failed')
  set(task, 'error', callback.data)
  append('error', callback.data, task.id)
end

-- The worker wants the task tried again: a round later, after a backoff, with the same deadline.
function handle.retry(task, callback)
  if task.status == 'cancelling' then
    end_cancelled(task)
  elseif task.attempt >= max_attempts then
    stop_workers(task)
    end_task(task, 'failed')
    set(task, 'error', callback.extra)
    append('error', callback.extra, task.id)
  else
    task.over, task.round = true, (task.round or 0) + 1
    task.retry_at = now + math.min(max_backoff, first_backoff * 2 ^ (task.attempt - 1))
    set(task, 'over', '1')
    set(task, 'round', whole(task.round))
    set(task, 'retry_at', whole(task.retry_at))
    forget_parked(task)
    set_status(task, 'queued')
    tell_status(task, 'queued', ',"attempt":' .. whole(task.attempt))
  end
end

-- A worker that finds the deadline past reports `cancelled`; nobody asked for that, time ran out.
function handle.cancelled(task)
  if task.status ~= 'cancelling' and task.deadline and now >= task.deadline then
    stop_workers(task)
    end_timeout(task)
  else
    end_cancelled(task)
  end
end

function handle.dead() end

function handle.dead_end(task, callback)
  end_with_error(task, 'failed', 'task_failed', callback.extra,
    'The callback that was to end the task could not be used.')
end

local function take_turn(task, callback)
  task.seq = callback.seq + 1
  set(task, 'seq', whole(task.seq))
  if callback.kind ~= 'dead' and callback.kind ~= 'dead_end' then
    run_on(task)
  end
  handle[callback.kind](task, callback)
end

-- What a callback that waits is counted as; never 0, so that a task knows whether any waits.
local function size_of(kind, data)
  return #kind + #data
end

local function take_parked(task)
  while not task.ended and not task.over and task.parked_bytes > 0 do
    local field = whole(task.seq)
    local packed = redis.call('HGET', task.parked, field)
    if not packed then
      return
    end
    redis.call('HDEL', task.parked, field)
    redis.call('ZREM', task.waiting, field)
    local kind, data, extra = unpack(cmsgpack.unpack(packed))
    task.parked_bytes = task.parked_bytes - size_of(kind, data)
    set(task, 'parked_bytes', whole(task.parked_bytes))
    take_turn(task, { seq = task.seq, kind = kind, data = data, extra = extra })
  end
end

local function end_as_gap(task)
  stop_workers(task)
  end_with_error(task, 'failed', 'task_failed', 'callback_gap',
    'Callbacks of the task are missing.')
end

local function park(task, callback)
  local field = whole(callback.seq)
  local packed = cmsgpack.pack({ callback.kind, callback.data, callback.extra })
  if redis.call('HSETNX', task.parked, field, packed) == 0 then
    return 'duplicate'
  end
  redis.call('ZADD', task.waiting, now, field)
  task.parked_bytes = task.parked_bytes + size_of(callback.kind, callback.data)
  set(task, 'parked_bytes', whole(task.parked_bytes))
  if redis.call('ZCARD', task.waiting) > max_parked or task.parked_bytes > max_parked_bytes then
    end_as_gap(task)
  end
  return 'parked'
end

local function begin_attempt(task, attempt)
  task.attempt, task.seq, task.streamed = attempt, 1, {}
  set(task, 'attempt', whole(attempt))
  set(task, 'seq', '1')
  if task.over and task.delivered and task.delivered ~= task.round then
    task.delivered = task.round  -- it has begun already: it is not to be added once more
    set(task, 'delivered', whole(task.round))
  end
  task.over = false
  set(task, 'over', '')
  if attempt > 1 then
    forget_parked(task)
    redis.call('DEL', task.text)
    redis.call('HDEL', task.key, 'progress')
    task.changes.progress = nil
    run_on(task)
    tell_status(task, 'running', ',"attempt":' .. whole(attempt) .. ',"reset":true')
  end
end

local function is_off(rule)
  return switched_off ~= '' and string.find(switched_off, rule, 1, true)
end

local function receive(task, callback)
  if not task.known then return 'unknown' end
  if TERMINAL[task.status] then return 'late' end
  if callback.attempt < task.attempt then
    if is_off('fence') then handle[callback.kind](task, callback) end
    return 'stale'
  end
  if callback.attempt == task.attempt and task.over then return 'stale' end
  if callback.attempt > task.attempt then begin_attempt(task, callback.attempt) end
  if callback.seq < task.seq then
    if is_off('dedupe') then handle[callback.kind](task, callback) end
    return 'duplicate'
  end
  if callback.seq > task.seq and not is_off('gap') then return park(task, callback) end
  take_turn(task, callback)
  take_parked(task)
  return 'applied'
end

local outcomes = {}
local at = OWN_ARGS + task_count
for i = 1, callback_count do
  local task = tasks[tonumber(ARGV[at + 1])]
  outcomes[i] = receive(task, {
    attempt = tonumber(ARGV[at + 2]), seq = tonumber(ARGV[at + 3]), kind = ARGV[at + 4],
    data = ARGV[at + 5], extra = ARGV[at + 6] })
  at = at + 6
end

local gaps, ended, retries = {}, {}, {}
for i, task in ipairs(tasks) do
  gaps[i], ended[i], retries[i] = 0, 0, { 0, '' }
  if task.known then
    save(task)
    if TERMINAL[task.status] then
      ended[i] = task.stop and 2 or 1
      if not task.ended then
        repeat_release()
      end
    end
    if task.over and ended[i] == 0 and task.delivered ~= task.round then
      retries[i] = { task.retry_at, task.entry or '' }
    end
    if ended[i] == 0 and task.parked_bytes > 0 then
      local first = redis.call('ZRANGE', task.waiting, 0, 0, 'WITHSCORES')
      gaps[i] = tonumber(first[2]) + gap_timeout
    end
  end
end
commit()
return { outcomes, gaps, ended, retries, released }
