--[[ Turns (contract, section 5): moves tasks whose turn it is into the work streams, while there is
  room. Behind _groups.lua and _tenants.lua; takes nothing more.

  Who moves the next task: whoever runs this, on any instance: after each send, as soon as a worker
  has taken or ended something, and several times a second besides. It is one atomic step, so that
  nobody who dies can leave a move half done, and nothing is moved twice: a task that is `delivered`
  in its round is never added again.

  Each tenant has a line for each priority, and each priority a ring of the tenants that have
  somebody in that line and a free place to run (`max_running`). The tenant with the smallest `pass`
  goes first, and then pays 1/weight (stride scheduling): busy tenants share by weight, and one that
  comes back after a pause starts where the others are, with no credit and no debt. So a move costs
  O(log tenants), however long the lines are.

  High goes before normal before low, but for two rules, by which no flood can starve those below:
  a class that has waited 5 s without getting a place in the streams gets the next one; and while
  an entry has waited 5 s in its stream, nothing is added above it.

  move(): returns how many have moved, and 1 if there is room for more at once, else 0.
  save_turns(): at the end of a script; writes only what has changed. Returns tasks in line, which
    is for people to look at: nothing is decided by it. ]]
local PATIENCE = 5000  -- ms

-- For each class: since when it has waited for a place.
local since = {}
for level, moment in ipairs(redis.call('HMGET', STATE, 'since:1', 'since:2', 'since:3')) do
  since[level] = tonumber(moment or '')
end
local was = { front = { unpack(front, 1, 3) }, since = { unpack(since, 1, 3) } }

-- What waits in the streams.

-- How many entries of a stream no worker has taken, and how many are in workers' hands.
local function look_into(stream)
  local length = redis.call('XLEN', stream)
  local pending = redis.pcall('XPENDING', stream, GROUP)
  if length == 0 or pending.err or pending[1] == 0 then
    return length, 0
  end
  local taken = pending[1]
  for _, consumer in ipairs(pending[4]) do
    if consumer[1] == GIVEN_BACK then
      taken = taken - tonumber(consumer[2])
    end
  end
  return math.max(0, length - taken), taken
end

-- Whether the oldest entry that no worker has taken has waited for long. An entry's id begins with
-- the time at which it was added; a clock that was set back meanwhile makes this rule wait longer.
local function is_aged(stream)
  local given_back = redis.pcall('XPENDING', stream, GROUP, '-', '+', 1, GIVEN_BACK)
  local oldest = not given_back.err and given_back[1]
    or redis.call('XRANGE', stream, '(' .. taken_up_to(stream, GROUP), '+', 'COUNT', 1)[1]
  return oldest and now - tonumber(string.match(oldest[1], '^%d+')) >= PATIENCE
end

-- Taking turns.

-- The member whose turn it is in a class; nil if none can go.
local function next_of(level)
  local again = redis.call('ZPOPMIN', AGAIN[level])[1]
  if again then
    return again
  end
  while true do
    local first = redis.call('ZRANGE', RINGS[level], 0, 0, 'WITHSCORES')
    if not first[1] then
      return nil
    end
    local tenant = tenant_named(first[1])
    local member = may_run(tenant) and redis.call('ZPOPMIN', tenant.lines[level])[1]
    if member then
      in_line = in_line - 1
      redis.call('SADD', tenant.running, member)
      local pass = tonumber(first[2])
      front[level], tenant.pass[level] = math.max(front[level], pass), pass + 1 / tenant.weight
      redis.call('HSET', tenant.terms, 'pass:' .. level,
        string.format('%.17g', tenant.pass[level]))
    end
    line_up(tenant)
    if member then
      return member
    end
  end
end

-- Adds a task to its stream, and notes that in the task; from this moment its timeout runs.
local function deliver(member, level)
  local tenant, task, task_id = place_of(member)
  local facts = redis.call('HMGET', task, 'status', 'action', 'timeout_ms', 'round', 'deadline',
    'delivered')
  if not facts[1] or TERMINAL[facts[1]] then
    redis.call('SREM', tenant.running, member)
    line_up(tenant)
    return false
  elseif facts[6] == facts[4] then  -- a newer attempt has begun without it
    return false
  end
  local moment = redis.call('TIME')  -- that of its entry: others went before it in this call
  local entered = tonumber(moment[1]) * 1000 + math.floor(tonumber(moment[2]) / 1000)
  local deadline = tonumber(facts[5]) or entered + tonumber(facts[3])
  local entry = redis.call('XADD', STREAMS[level], '*', 'task_id', task_id,
    'action', facts[2] .. whole(deadline) .. '}')
  redis.call('HSET', task, 'deadline', whole(deadline), 'entry', entry, 'delivered', facts[4])
  look_at(due_of(task_id), member, deadline)
  return true
end

local function waits(level)
  return redis.call('EXISTS', AGAIN[level], RINGS[level]) > 0
end

local function note_waiting()
  for level = 1, 3 do
    since[level] = waits(level) and (since[level] or now) or nil
  end
end

local aged

-- The class that goes next; nil if none may.
local function choose()
  if not aged then
    local low = is_aged(STREAMS[3])
    aged = { low or is_aged(STREAMS[2]), low, false }  -- aged[n]: somebody below n has waited long
  end
  local best, somebody_stands_back
  for level = 1, 3 do
    if since[level] then
      local overdue = now - since[level] >= PATIENCE
      if aged[level] then
        somebody_stands_back = true
      elseif overdue and level > 1 then
        best = level
      elseif not best and not somebody_stands_back then
        best = level
      end
    end
  end
  return best
end

local function move()
  local room, moved = 0, 0
  note_waiting()
  if not (since[1] or since[2] or since[3]) then
    return 0, 0
  end
  local untaken, executing = 0, 0
  for _, stream in ipairs(STREAMS) do
    local here, taken = look_into(stream)
    untaken, executing = untaken + here, executing + taken
  end
  room = math.max(PREFETCH, executing) - untaken
  while room > 0 and moved < MOST_MOVES do
    local level = choose()
    if not level then
      return moved, 0
    end
    local member = next_of(level)
    if member and deliver(member, level) then
      room, moved, since[level] = room - 1, moved + 1, now
    end
    note_waiting()
  end
  return moved, room > 0 and 1 or 0
end

local function save_turns()
  for level = 1, 3 do
    if front[level] ~= was.front[level] then
      redis.call('HSET', STATE, 'pass:' .. level, string.format('%.17g', front[level]))
    end
    if since[level] ~= was.since[level] then
      if since[level] then
        redis.call('HSET', STATE, 'since:' .. level, whole(since[level]))
      else
        redis.call('HDEL', STATE, 'since:' .. level)
      end
    end
  end
  if in_line == 0 then
    return tonumber(redis.call('HGET', STATE, 'in_line') or 0)
  end
  return redis.call('HINCRBY', STATE, 'in_line', in_line)
end
