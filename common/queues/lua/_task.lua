--[[ What scripts share that change a task; put behind _session.lua.

  A task's keys come as four, from the place that the script names:
  task (HASH)   text (STRING, what the newest attempt streamed)
  parked (HASH, seq -> callback that waits)   waiting (ZSET, seq by time of arrival) ]]
local FIELDS = { 'status', 'attempt', 'seq', 'agent_id', 'parked_bytes', 'deadline', 'cancel_at',
                 'reason', 'stop', 'over', 'round', 'retry_at', 'delivered', 'wait_until',
                 'entry' }

-- Tasks that waited in their session's line and whose turn has come: to be delivered.
local released = {}

local function load_task(id, at)
  local task = { id = id, key = KEYS[at], text = KEYS[at + 1], parked = KEYS[at + 2],
                 waiting = KEYS[at + 3], changes = {}, streamed = {} }
  local values = redis.call('HMGET', task.key, unpack(FIELDS))
  task.known = values[1] and true or false
  if task.known then
    task.status, task.attempt, task.seq = values[1], tonumber(values[2]), tonumber(values[3])
    task.agent_id, task.parked_bytes = values[4], tonumber(values[5]) or 0
    task.deadline, task.cancel_at = tonumber(values[6]), tonumber(values[7])
    task.reason, task.stop = values[8] or '', values[9]
    task.over = values[10] == '1'  -- its newest attempt asked to be tried again
    task.round, task.retry_at = tonumber(values[11]), tonumber(values[12])
    task.delivered = tonumber(values[13])  -- the newest round that is in a work stream
    task.wait_until, task.entry = tonumber(values[14]), values[15]
  end
  return task
end

-- Remembers a change of the task; save() writes all of them in one go.
local function set(task, field, value)
  task.changes[field] = value
  task.changed = true
end

local function set_status(task, status)
  task.status = status
  set(task, 'status', status)
end

local function forget_parked(task)
  redis.call('DEL', task.parked, task.waiting)
  task.parked_bytes = 0
  set(task, 'parked_bytes', '0')
end

-- Data of a task_update. `more` is JSON members, each with its comma in front.
local function tell_status(task, status, more)
  append('task_update', '{"status":"' .. status .. '"' .. (more or '') .. '}', task.id)
end

local function reason_member(task)
  return task.reason ~= '' and ',"message":' .. cjson.encode(task.reason) or ''
end

-- Its workers may not know of the end that is coming; who called the script tells them.
local function stop_workers(task)
  task.stop = '1'
  set(task, 'stop', '1')
end

-- Lets the next task of the session go, if it waits and all before it have ended.
local function release_next()
  local first = redis.call('ZRANGE', open, 0, 0)[1]
  if first and redis.call('ZREM', line, first) == 1 then
    released[#released + 1] = first
  end
end

-- Tells once more whose turn it is: who heard of it first may have died before handing it on.
local function repeat_release()
  local first = redis.call('ZRANGE', open, 0, 0)[1]
  if first and #released == 0 and not redis.call('ZSCORE', line, first) then
    released[1] = first
  end
end

-- Ends a task. The caller has seen that it has not ended, and puts the end into the log.
local function end_task(task, status)
  set_status(task, status)
  set(task, 'finished', whole(now))
  redis.call('ZREM', open, task.id)
  redis.call('ZREM', line, task.id)
  release_next()
  forget_parked(task)
  task.ended = true
end

local function end_cancelled(task)
  end_task(task, 'cancelled')
  tell_status(task, 'cancelled', reason_member(task))
end

-- `data` is the frame's data and at the same time what status tells as the task's error.
local function end_with_error(task, status, code, error_type, message)
  local data = '{"code":"' .. code .. '","error_type":' .. cjson.encode(error_type)
    .. ',"message":' .. cjson.encode(message) .. ',"status":"' .. status .. '"}'
  end_task(task, status)
  set(task, 'error', data)
  append('error', data, task.id)
end

local function end_timeout(task)
  end_with_error(task, 'timeout', 'task_timeout', 'timeout', 'The task was not done in time.')
end

local function save(task)
  if #task.streamed > 0 then
    redis.call('APPEND', task.text, table.concat(task.streamed))
  end
  if task.changed then
    set(task, 'updated', whole(now))
    local flat = {}
    for field, value in pairs(task.changes) do
      flat[#flat + 1] = field
      flat[#flat + 1] = value
    end
    redis.call('HSET', task.key, unpack(flat))
  end
  if task.ended then
    if task.status == 'completed' then
      redis.call('DEL', task.text)
    else
      redis.call('EXPIRE', task.text, ttl)
    end
    redis.call('EXPIRE', task.key, ttl)
  end
end
