--[[ Notes what has become of tasks, each of which may be told again, at any time, by anyone; then
  moves those whose turn it is. Behind _turns.lua. What a crash kept from being told here is told
  again by the next look at the task (watch.py).

  KEYS[]: those of _tenants.lua
  ARGV[1] how many have come into line   ARGV[2] how many have ended   then those members, the ones
  behind the others; then what _tenants.lua wants

  Returns {tasks moved, 1 if there is room for more moves at once, tasks in line}. ]]

local function enter(member)
  local tenant, task = place_of(member)
  local facts = redis.call('HMGET', task, 'status', 'priority', 'round', 'delivered',
    'over', 'retry_at')
  local level = LEVEL[facts[2]]
  local is_backing_off = facts[5] == '1' and now < tonumber(facts[6])
  if not facts[1] or TERMINAL[facts[1]] or facts[3] == facts[4] or is_backing_off then
    return
  end
  if facts[4] then  -- it was delivered in an earlier round, and keeps its place to run
    redis.call('SADD', tenant.running, member)
    redis.call('ZADD', AGAIN[level], 'NX', now, member)
    return
  end
  redis.call('SREM', tenant.held, member)
  stand_in_line(tenant, member, level)
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
  local tenant, task = place_of(member)
  local status = redis.call('HGET', task, 'status')
  if status and not TERMINAL[status] then
    return
  end
  redis.call('SREM', tenant.held, member)
  redis.call('SREM', tenant.running, member)
  for level, line in ipairs(tenant.lines) do
    in_line = in_line - redis.call('ZREM', line, member)
    redis.call('ZREM', AGAIN[level], member)
  end
  tenant.changed = true
  if status and redis.call('HSETNX', task, 'tallied', '1') == 1 then
    tally(tenant, task, status)
  end
end

local at = 2
for index, tell in ipairs({ enter, leave }) do
  for _ = 1, tonumber(ARGV[index]) do
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
return { moved, more, save_turns() }
