--[[ Who stands in which line, and what is told of tasks: enter(), hold() and leave(), each of which
  may be told again, at any time, by anyone. Behind _clock.lua and _due.lua, in front of
  take_turns.lua, whose KEYS[] and ARGV[] these are.

  state, front, since: what was, to be saved by the script   in_line: how many more are in line
  tenant_of(), may_run(), line_up(): a tenant, its places to run, and its place in the rings ]]
local RINGS = { KEYS[4], KEYS[5], KEYS[6] }
local AGAIN = { KEYS[7], KEYS[8], KEYS[9] }
local STATE, PREFIX = KEYS[10], ARGV[1]
local LEVEL = { high = 1, normal = 2, low = 3 }
local TERMINAL = { completed = true, failed = true, cancelled = true, timeout = true }
local KEEP_USAGE = 90 * 24 * 3600

-- For each class: the pass of whoever went last, and since when it has waited for a place.
local front, since = {}, {}
for level, facts in ipairs({ 1, 2, 3 }) do
  facts = redis.call('HMGET', STATE, 'pass:' .. level, 'since:' .. level)
  front[level], since[level] = tonumber(facts[1] or '') or 0, tonumber(facts[2] or '')
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
    local terms = redis.call('HMGET', tenant.terms, 'max_running', 'weight',
      'pass:1', 'pass:2', 'pass:3')
    tenant.max_running, tenant.weight = tonumber(terms[1] or ''), tonumber(terms[2] or '') or 1
    tenant.pass = {}
    for level = 1, 3 do
      tenant.pass[level] = tonumber(terms[2 + level] or '') or 0
    end
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
      tenant.pass[level] = math.max(tenant.pass[level], front[level])
      redis.call('ZADD', RINGS[level], tenant.pass[level], tenant.id)
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
  local facts = redis.call('HMGET', task, 'status', 'priority', 'round', 'delivered',
    'over', 'retry_at')
  local level = LEVEL[facts[2]]
  local is_backing_off = facts[5] == '1' and now < tonumber(facts[6])
  if not facts[1] or TERMINAL[facts[1]] or facts[3] == facts[4] or is_backing_off then
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
