--[[ Tenants: what they may have, what they use, and who of theirs stands in which line. Behind
  _common.lua and _due.lua; for the scripts that let messages in and give turns.

  The last ten of KEYS[]: work streams, high normal low (STREAMs); rings, the same (ZSETs, tenant ->
  pass); again, the same (ZSETs, member -> since: tasks to be tried again, which have their place to
  run); state (HASH: number, in_line, pass:1..3, since:1..3)
  The last six of ARGV[]: key prefix; prefetch; group; consumer who holds what nobody runs; moves at
  the most; number of shards of due times

  The keys of tenants and tasks are put together in here: these scripts want one Redis server.
  A member is tenant:session:task. ]]
local KEY, ARG = #KEYS - 10, #ARGV - 6
local STREAMS = { KEYS[KEY + 1], KEYS[KEY + 2], KEYS[KEY + 3] }
local RINGS = { KEYS[KEY + 4], KEYS[KEY + 5], KEYS[KEY + 6] }
local AGAIN = { KEYS[KEY + 7], KEYS[KEY + 8], KEYS[KEY + 9] }
local STATE = KEYS[KEY + 10]
local PREFIX, PREFETCH, GROUP = ARGV[ARG + 1], tonumber(ARGV[ARG + 2]), ARGV[ARG + 3]
local GIVEN_BACK, MOST_MOVES = ARGV[ARG + 4], tonumber(ARGV[ARG + 5])
local DUE_SHARDS = tonumber(ARGV[ARG + 6])

local LEVEL = { high = 1, normal = 2, low = 3 }
local KEEP_USAGE = 90 * 24 * 3600

-- For each class: the pass of whoever went last.
local front = {}
for level, pass in ipairs(redis.call('HMGET', STATE, 'pass:1', 'pass:2', 'pass:3')) do
  front[level] = tonumber(pass or '') or 0
end

local in_line = 0  -- more than before

local tenants = {}

local function tenant_named(id)
  local tenant = tenants[id]
  if not tenant then
    local base = PREFIX .. 'tenant:{' .. id .. '}:'
    tenant = { id = id, terms = base .. 'terms', held = base .. 'held', running = base .. 'running',
               requests = base .. 'requests',
               lines = { base .. 'line:high', base .. 'line:normal', base .. 'line:low' },
               usage = PREFIX .. 'usage:{' .. id .. '}:' .. whole(math.floor(now / DAY)) }
    local terms = redis.call('HMGET', tenant.terms, 'max_running', 'weight',
      'pass:1', 'pass:2', 'pass:3')
    tenant.max_running, tenant.weight = tonumber(terms[1] or ''), tonumber(terms[2] or '') or 1
    tenant.pass = {}
    for level = 1, 3 do
      tenant.pass[level] = tonumber(terms[2 + level] or '') or 0
    end
    tenants[id] = tenant
  end
  return tenant
end

-- A member's tenant, the key of its task, and the task's id.
local function place_of(member)
  local id, session, task_id = string.match(member, '^([^:]+):([^:]+):(.+)$')
  return tenant_named(id), PREFIX .. 'task:{' .. id .. ':' .. session .. '}:' .. task_id, task_id
end

local function due_of(task_id)
  return PREFIX .. 'due:' .. string.byte(task_id, -1) % DUE_SHARDS
end

local function may_run(tenant)
  return not tenant.max_running or redis.call('SCARD', tenant.running) < tenant.max_running
end

-- Puts a tenant into the rings of the lines in which somebody waits, or takes it out of them.
local function line_up(tenant)
  local goes = may_run(tenant)
  for level, lane in ipairs(tenant.lines) do
    if goes and redis.call('EXISTS', lane) == 1 then
      tenant.pass[level] = math.max(tenant.pass[level], front[level])
      redis.call('ZADD', RINGS[level], tenant.pass[level], tenant.id)
    else
      redis.call('ZREM', RINGS[level], tenant.id)
    end
  end
end

-- Puts a task behind the others of its tenant and priority, unless it stands there. The tenant has
-- to line up then.
local function stand_in_line(tenant, member, level)
  if not redis.call('ZSCORE', tenant.lines[level], member) then
    redis.call('ZADD', tenant.lines[level], redis.call('HINCRBY', STATE, 'number', 1), member)
    in_line = in_line + 1
    tenant.changed = true
  end
end

local function used(tenant, field, amount)
  redis.call('HINCRBYFLOAT', tenant.usage, field, amount)
  redis.call('EXPIRE', tenant.usage, KEEP_USAGE)
end
