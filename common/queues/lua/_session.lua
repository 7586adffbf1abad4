--[[ What all scripts of a session share; put in front of each of them, behind _common.lua.

  KEYS[1] meta (HASH: epoch, last)   KEYS[2] log (STREAM, entry ids <offset>-0, field e)
  KEYS[3] open (ZSET of ids of tasks that have not ended, in the order of their messages)
  KEYS[4] line (ZSET, the same order: those of them that wait for all before them to end)
  ARGV[1] channel of the session     ARGV[2] timestamp for new events, RFC 3339
  ARGV[3] epoch to use if the log begins now
  ARGV[4] events to keep             ARGV[5] seconds to keep them after the last event

  A script calls append() and announce() as it goes and commit() once at its end, so that all its
  events are numbered, kept and published in one step, and none is kept of a script that fails
  half way. Payloads are joined as text, never decoded: cjson turns [] into {} and rounds large
  integers. ]]
local meta, log, open, line = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local channel, timestamp, fresh_epoch = ARGV[1], ARGV[2], ARGV[3]
local max_events, ttl = tonumber(ARGV[4]), tonumber(ARGV[5])
local FIRST_KEY, FIRST_ARG = 5, 6  -- where a script's own begin

local epoch, last
local told, passing = {}, {}

-- Loads the log's state; begins a new life of the log where there is none. Fails here, before
-- anything is written, if the log could not be added to.
local function open_log()
  redis.call('XLEN', log)
  local state = redis.call('HMGET', meta, 'epoch', 'last')
  epoch, last = state[1], tonumber(state[2])
  if not epoch then
    epoch, last = fresh_epoch, 0
    redis.call('DEL', log)
    redis.call('HSET', meta, 'epoch', epoch, 'last', 0)
    redis.call('EXPIRE', meta, ttl)
  end
end

local function entry_of(kind, data, task_id, metadata)
  local parts = { '{"type":"', kind, '","data":', data, ',"timestamp":"', timestamp, '"' }
  if task_id then
    parts[#parts + 1] = ',"task_id":"' .. task_id .. '"'
  end
  if metadata and metadata ~= '' then
    parts[#parts + 1] = ',"metadata":' .. metadata
  end
  parts[#parts + 1] = '}'
  return table.concat(parts)
end

-- Puts an event into the log, with the next offset.
local function append(kind, data, task_id, metadata)
  if not epoch then
    open_log()
  end
  told[#told + 1] = entry_of(kind, data, task_id, metadata)
end

-- Tells those who are connected, and keeps nothing.
local function announce(kind, data, task_id)
  passing[#passing + 1] = entry_of(kind, data, task_id)
end

-- While a task is open neither it nor its session's log expires.
local function keep_log()
  if redis.call('ZCARD', open) > 0 then
    redis.call('PERSIST', meta)
    redis.call('PERSIST', log)
  else
    redis.call('EXPIRE', meta, ttl)
    redis.call('EXPIRE', log, ttl)
  end
end

local function commit()
  if #passing > 0 then  -- first: an agent that types does so before it has answered
    redis.call('PUBLISH', channel, 'T\n' .. table.concat(passing, '\n'))
  end
  if #told > 0 then
    for i, entry in ipairs(told) do
      redis.call('XADD', log, whole(last + i) .. '-0', 'e', entry)
    end
    redis.call('HSET', meta, 'last', whole(last + #told))
    redis.call('XTRIM', log, 'MAXLEN', '=', max_events)
    keep_log()
    local head = 'E ' .. epoch .. ' ' .. whole(last + 1) .. '\n'
    redis.call('PUBLISH', channel, head .. table.concat(told, '\n'))
  end
end
