--[[ The one place where tasks take their turns (contract, section 5, Turns): notes which tasks came
  into line, wait in their session, or have ended, and moves those whose turn it is into the work
  streams while there is room. Behind _clock.lua and _due.lua.

  Who moves the next task: whoever runs this, on any instance: after each send, as soon as a worker
  has taken or ended something, and several times a second besides. It is one atomic step, so that
  nobody who dies can leave a move half done, and nothing is moved twice: a task that is `delivered`
  in its round is never added again. What a crash kept from being told here is told again by the
  next look at the task (watch.py).

  Each tenant has a line for each priority, and each priority a ring of the tenants that have
  somebody in that line and a free place to run (`max_running`). The tenant with the smallest `pass`
  goes first, and then pays 1/weight (stride scheduling): busy tenants share by weight, and one that
  comes back after a pause starts where the others are, with no credit and no debt. So a move costs
  O(log tenants), however long the lines are.

  High goes before normal before low, but for two rules, by which no flood can starve those below:
  a class that has waited 5 s without getting a place in the streams gets the next one; and while
  an entry has waited 5 s in its stream, nothing is added above it.

  The keys of tenants and tasks are put together in here: this script wants one Redis server.

  KEYS[1..3] work streams, high normal low   KEYS[4..6] rings (ZSETs, tenant -> pass)
  KEYS[7..9] again (ZSETs, member -> since: tasks to be tried again, which have their place to run)
  KEYS[10] state (HASH: pass, number, in_line, since:1..3)
  ARGV[1] key prefix   ARGV[2] prefetch   ARGV[3] group   ARGV[4] consumer who holds what nobody runs
  ARGV[5] moves at the most   ARGV[6] number of shards of due times
  ARGV[7], ARGV[8], ARGV[9] how many members have come into line, are held in their session, ended
  then those members: tenant:session:task

  Returns {tasks moved, 1 if there is room for more moves at once, tasks in line}. The last is for
  people to look at; nothing is decided by it. ]]
local STREAMS = { KEYS[1], KEYS[2], KEYS[3] }
local RINGS = { KEYS[4], KEYS[5], KEYS[6] }
local AGAIN = { KEYS[7], KEYS[8], KEYS[9] }
local STATE, PREFIX = KEYS[10], ARGV[1]
local LEVEL = { high = 1, normal = 2, low = 3 }
local TERMINAL = { completed = true, failed = true, cancelled = true, timeout = true }
local PATIENCE = 5000  -- ms
local KEEP_USAGE = 90 * 24 * 3600

local state = redis.call('HMGET', STATE, 'pass', 'since:1', 'since:2', 'since:3')
local front = tonumber(state[1]) or 0  -- the pass of whoever went last
local since = { tonumber(state[2]), tonumber(state[3]), tonumber(state[4]) }

local function whole(number)
  return string.format('%.0f', number)
end

local in_line = 0  -- more than before

local tenants = {}

local function tenant_of(member)
  local id, session, task_id = string.match(member, '^([^:]+):([^:]+):(.+)$')
  local tenant = tenants[id]
  if not tenant then
    local base = PREFIX .. 'tenant:{' .. id .. '}:'
    tenant = { id = id, terms = base .. 'terms', arriving = base .. 'arriving',
               held = base .. 'held', running = base .. 'running',
               lines = { base .. 'line:high', base .. 'line:normal', base .. 'line:low' } }
    local terms = redis.call('HMGET', tenant.terms, 'max_running', 'weight', 'pass')
    tenant.max_running = tonumber(terms[1] or '')
    tenant.weight, tenant.pass = tonumber(terms[2]) or 1, tonumber(terms[3]) or 0
    tenants[id] = tenant
  end
  return tenant, PREFIX .. 'task:{' .. id .. ':' .. session .. '}:' .. task_id, task_id
end

local function may_run(tenant)
  return not tenant.max_running or redis.call('SCARD', tenant.running) < tenant.max_running
end

-- Puts a tenant into the rings of the lines in which somebody waits, or takes it out of them.
local function line_up(tenant)
  local goes = may_run(tenant)
  for level, line in ipairs(tenant.lines) do
    if goes and redis.call('EXISTS', line) == 1 then
      tenant.pass = math.max(tenant.pass, front)
      redis.call('ZADD', RINGS[level], tenant.pass, tenant.id)
    else
      redis.call('ZREM', RINGS[level], tenant.id)
    end
  end
end

local function used(tenant, field, amount)
  local key = PREFIX .. 'usage:{' .. tenant.id .. '}:' .. day_of(now)
  redis.call('HINCRBYFLOAT', key, field, amount)
  redis.call('EXPIRE', key, KEEP_USAGE)
end

-- What is told of tasks. Each may be told again, at any time, by anyone.

-- The task is known by now: it no longer counts as arriving, and its request counts as used.
local function arrived(tenant, task, member)
  redis.call('ZREM', tenant.arriving, member)
  if redis.call('HSETNX', task, 'requested', '1') == 1 then
    used(tenant, 'requests', 1)
  end
end

local function hold(member)
  local tenant, task = tenant_of(member)
  local facts = redis.call('HMGET', task, 'status', 'delivered')
  if facts[1] and not TERMINAL[facts[1]] and not facts[2] then
    arrived(tenant, task, member)
    local level = LEVEL[redis.call('HGET', task, 'priority')]
    if not redis.call('ZSCORE', tenant.lines[level], member) then
      redis.call('SADD', tenant.held, member)
    end
  end
end

local function enter(member)
  local tenant, task = tenant_of(member)
  local facts = redis.call('HMGET', task, 'status', 'priority', 'round', 'delivered')
  local level = LEVEL[facts[2]]
  if not facts[1] or TERMINAL[facts[1]] or facts[3] == facts[4] then
    return
  end
  arrived(tenant, task, member)
  if facts[4] then  -- it was delivered in an earlier round, and keeps its place to run
    redis.call('SADD', tenant.running, member)
    redis.call('ZADD', AGAIN[level], 'NX', now, member)
    return
  end
  redis.call('SREM', tenant.held, member)
  if not redis.call('ZSCORE', tenant.lines[level], member) then
    redis.call('ZADD', tenant.lines[level], redis.call('HINCRBY', STATE, 'number', 1), member)
    in_line = in_line + 1
    tenant.changed = true
  end
end

local function tally(tenant, task, status)
  used(tenant, status, 1)
  local usage = redis.call('HGET', task, 'usage')
  local readable, spent = pcall(cjson.decode, usage or '{}')
  for _, field in ipairs({ 'input_tokens', 'output_tokens', 'cost' }) do
    local amount = readable and type(spent) == 'table' and spent[field]
    if type(amount) == 'number' and amount > 0 and amount < 1e15 then
      if field ~= 'cost' then
        amount = math.floor(amount)
      end
      used(tenant, field, string.format('%.14g', amount))  -- 0.1, not 0.1000000000000001
    end
  end
end

local function leave(member)
  local tenant, task = tenant_of(member)
  local status = redis.call('HGET', task, 'status')
  if status and not TERMINAL[status] then
    return
  end
  redis.call('ZREM', tenant.arriving, member)
  redis.call('SREM', tenant.held, member)
  redis.call('SREM', tenant.running, member)
  for level, line in ipairs(tenant.lines) do
    in_line = in_line - redis.call('ZREM', line, member)
    redis.call('ZREM', AGAIN[level], member)
  end
  tenant.changed = true
  if status then
    arrived(tenant, task, member)
    if redis.call('HSETNX', task, 'tallied', '1') == 1 then
      tally(tenant, task, status)
    end
  end
end

-- What waits in the streams.

local function facts_of(flat)
  local facts = {}
  for i = 1, #flat, 2 do
    facts[flat[i]] = flat[i + 1]
  end
  return facts
end

-- How many entries of a stream no worker has taken, and how many are in workers' hands.
local function look_into(stream)
  local length = redis.call('XLEN', stream)
  local pending = redis.pcall('XPENDING', stream, ARGV[3])
  if length == 0 or pending.err or pending[1] == 0 then
    return length, 0
  end
  local taken = pending[1]
  for _, consumer in ipairs(pending[4]) do
    if consumer[1] == ARGV[4] then
      taken = taken - tonumber(consumer[2])
    end
  end
  return math.max(0, length - taken), taken
end

-- Whether the oldest entry that no worker has taken has waited for long. An entry's id begins with
-- the time at which it was added; a clock that was set back meanwhile makes this rule wait longer.
local function is_aged(stream)
  local taken_up_to = '0-0'
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  for _, group in ipairs(groups.err and {} or groups) do
    local facts = facts_of(group)
    if facts.name == ARGV[3] then
      taken_up_to = facts['last-delivered-id']
    end
  end
  local oldest = redis.call('XRANGE', stream, '(' .. taken_up_to, '+', 'COUNT', 1)[1]
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
    local tenant = tenant_of(first[1] .. ':-:-')
    local member = may_run(tenant) and redis.call('ZPOPMIN', tenant.lines[level])[1]
    if member then
      in_line = in_line - 1
      redis.call('SADD', tenant.running, member)
      front = math.max(front, tonumber(first[2]))
      tenant.pass = tonumber(first[2]) + 1 / tenant.weight
      redis.call('HSET', tenant.terms, 'pass', string.format('%.17g', tenant.pass))
    end
    line_up(tenant)
    if member then
      return member
    end
  end
end

-- Adds a task to its stream, and notes that in the task; from this moment its timeout runs.
local function deliver(member, level)
  local tenant, task, task_id = tenant_of(member)
  local facts = redis.call('HMGET', task, 'status', 'action', 'timeout_ms', 'round', 'deadline')
  if not facts[1] or TERMINAL[facts[1]] then
    redis.call('SREM', tenant.running, member)
    line_up(tenant)
    return false
  end
  local deadline = tonumber(facts[5]) or now + tonumber(facts[3])
  local entry = redis.call('XADD', STREAMS[level], '*', 'task_id', task_id,
    'action', facts[2] .. whole(deadline) .. '}')
  redis.call('HSET', task, 'deadline', whole(deadline), 'entry', entry, 'delivered', facts[4])
  look_at(PREFIX .. 'due:' .. string.byte(task_id, -1) % tonumber(ARGV[6]), member, deadline)
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
  local room, moved, most = 0, 0, tonumber(ARGV[5])
  note_waiting()
  if not (since[1] or since[2] or since[3]) then
    return 0, 0
  end
  local untaken, executing = 0, 0
  for _, stream in ipairs(STREAMS) do
    local here, taken = look_into(stream)
    untaken, executing = untaken + here, executing + taken
  end
  room = math.max(tonumber(ARGV[2]), executing) - untaken
  while room > 0 and moved < most do
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

local at = 9
for index, tell in ipairs({ enter, hold, leave }) do
  for _ = 1, tonumber(ARGV[6 + index]) do
    at = at + 1
    tell(ARGV[at])
  end
end
for _, tenant in pairs(tenants) do
  if tenant.changed then
    line_up(tenant)
  end
end

local moved, more = move()
redis.call('HSET', STATE, 'pass', string.format('%.17g', front))
for level = 1, 3 do
  if since[level] then
    redis.call('HSET', STATE, 'since:' .. level, whole(since[level]))
  else
    redis.call('HDEL', STATE, 'since:' .. level)
  end
end
return { moved, more, redis.call('HINCRBY', STATE, 'in_line', in_line) }
