--[[ Takes a message: holds it to its tenant's limits (contract, section 8), makes its task and puts
  `user_message` into the log, once for an Idempotency-Key (section 3), decides when it may run
  (`if_busy`, section 2), and puts it in line. All of it or nothing: a message that is refused, or
  repeats another, leaves no trace and counts for nothing.

  Beside _session.lua, in front of what _tenants.lua wants:
  KEYS[5] task (HASH)   KEYS[6] idempotency record (HASH), or the task again where there is no key
  KEYS[7] what leads from the task's id to its session (STRING)   KEYS[8] due times (ZSET)
  ARGV[6] task id   ARGV[7] fingerprint of the body, '' without a key   ARGV[8] seconds to keep it
  ARGV[9] response, JSON   ARGV[10] data of user_message   ARGV[11] metadata, JSON
  ARGV[12] what to do if the session has an open task: enqueue, parallel, reject, interrupt
  ARGV[13] how long it may wait for its turn, ms   ARGV[14] how soon to look at it, if it waits for
  its session's earlier tasks, ms
  ARGV[15..18] requests a minute, an hour; tokens a day; tasks that may wait: '' is unlimited
  ARGV[19] tasks that may run, '' is unlimited   ARGV[20] weight
  ARGV[21] member   ARGV[22] priority   ARGV[23] how many arguments of fields of the task follow

  Returns {'created', ids of tasks that it interrupts}, also when repeated, {'replayed', response,
  task id}, {'conflict'}, {'busy'}, or what refusal_of() says. ]]
local task, record, task_session, due = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local task_id, fingerprint, response, if_busy = ARGV[6], ARGV[7], ARGV[9], ARGV[12]
local limits = { per_minute = tonumber(ARGV[15]), per_hour = tonumber(ARGV[16]),
                 tokens_per_day = tonumber(ARGV[17]), max_queued = tonumber(ARGV[18]) }
local max_running, weight, member, priority, count = unpack(ARGV, 19, 23)
local session, tenant_id = string.match(member, '^(([^:]+):[^:]+)')
local KEEP_TERMS = 7 * 24 * 3600

if redis.call('EXISTS', task) == 1 then
  return { 'created', {} }  -- this very command came twice
end
if fingerprint ~= '' then
  local known = redis.call('HMGET', record, 'fingerprint', 'response', 'task_id')
  if known[1] then
    return known[1] == fingerprint and { 'replayed', known[2], known[3] } or { 'conflict' }
  end
end

local tenant = tenant_named(tenant_id)
-- The first that is written: where memory has run out Redis refuses it, and with it all the rest.
redis.call('HSET', tenant.terms, 'max_running', max_running, 'weight', weight)
redis.call('EXPIRE', tenant.terms, KEEP_TERMS)
tenant.max_running, tenant.weight = tonumber(max_running), tonumber(weight)

local refusal = refusal_of(tenant, limits)
local is_busy = redis.call('ZCARD', open) > 0
if not refusal and if_busy == 'reject' and is_busy then
  refusal = { 'busy' }
end
if refusal then
  save_turns()
  return refusal
end

append('user_message', ARGV[10], task_id, ARGV[11])
count_request(tenant, limits, task_id)
if fingerprint ~= '' then
  redis.call('HSET', record, 'fingerprint', fingerprint, 'response', response, 'task_id', task_id)
  redis.call('EXPIRE', record, ARGV[8])
end

local wait_until = now + tonumber(ARGV[13])
local fields = { 'status', 'queued', 'attempt', '0', 'seq', '1', 'round', '0',
                 'updated', whole(now), 'wait_until', whole(wait_until), 'priority', priority,
                 unpack(ARGV, 24, 23 + tonumber(count)) }

local interrupted = if_busy == 'interrupt' and redis.call('ZRANGE', open, 0, -1) or {}
local number = redis.call('HINCRBY', meta, 'messages', 1)
redis.call('ZADD', open, number, task_id)
redis.call('SET', task_session, session)
if is_busy and (if_busy == 'enqueue' or if_busy == 'interrupt') then
  redis.call('ZADD', line, number, task_id)
  redis.call('SADD', tenant.held, member)
  look_at(due, member, math.min(now + tonumber(ARGV[14]), wait_until))
  if if_busy == 'interrupt' then
    fields[#fields + 1] = 'interrupts'
    fields[#fields + 1] = '1'
  end
else
  stand_in_line(tenant, member, LEVEL[priority])
  look_at(due, member, wait_until)
end
line_up(tenant)  -- by its newest terms
redis.call('HSET', task, unpack(fields))
commit()
save_turns()
return { 'created', interrupted }
