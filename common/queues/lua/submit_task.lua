--[[ Takes a message: makes its task and puts `user_message` into the log, once for an
  Idempotency-Key (contract, section 3), and decides when it may run (`if_busy`, section 2).

  Beside _session.lua:
  KEYS[5] task (HASH)   KEYS[6] idempotency record (HASH), or the task again where there is no key
  ARGV[6] task id   ARGV[7] fingerprint of the body, '' without a key   ARGV[8] seconds to keep it
  ARGV[9] response, JSON   ARGV[10] data of user_message   ARGV[11] metadata, JSON
  ARGV[12] what to do if the session has an open task: enqueue, parallel, reject, interrupt
  ARGV[13] how long it may wait for its turn, ms
  ARGV[14..] fields of the task, flat

  Returns {'created', 1 if its turn has come, ids of tasks that it interrupts}, also when repeated,
  {'replayed', response, task id}, {'conflict'} or {'busy'}. ]]
local task, record = KEYS[5], KEYS[6]
local task_id, fingerprint, response, if_busy = ARGV[6], ARGV[7], ARGV[9], ARGV[12]

if redis.call('EXISTS', task) == 1 then
  -- This very command came twice.
  return { 'created', redis.call('ZSCORE', line, task_id) and 0 or 1, {} }
end
if fingerprint ~= '' then
  local known = redis.call('HMGET', record, 'fingerprint', 'response', 'task_id')
  if known[1] then
    return known[1] == fingerprint and { 'replayed', known[2], known[3] } or { 'conflict' }
  end
end

local before = redis.call('ZRANGE', open, 0, -1)
if if_busy == 'reject' and #before > 0 then
  return { 'busy' }
end
if fingerprint ~= '' then
  redis.call('HSET', record, 'fingerprint', fingerprint, 'response', response, 'task_id', task_id)
  redis.call('EXPIRE', record, ARGV[8])
end

append('user_message', ARGV[10], task_id, ARGV[11])
local number = redis.call('HINCRBY', meta, 'messages', 1)
redis.call('ZADD', open, number, task_id)
local waits = #before > 0 and (if_busy == 'enqueue' or if_busy == 'interrupt')
if waits then
  redis.call('ZADD', line, number, task_id)
end
local fields = { 'status', 'queued', 'attempt', '0', 'seq', '1', 'round', '0',
                 'updated', whole(now), 'wait_until', whole(now + tonumber(ARGV[13])) }
if waits and if_busy == 'interrupt' then
  fields[#fields + 1] = 'interrupts'
  fields[#fields + 1] = '1'
end
for i = 14, #ARGV do
  fields[#fields + 1] = ARGV[i]
end
redis.call('HSET', task, unpack(fields))
commit()
return { 'created', waits and 0 or 1, if_busy == 'interrupt' and before or {} }
