--[[ Takes a message: makes its task and puts `user_message` into the log, once for an
  Idempotency-Key (contract, section 3).

  Beside _session.lua:
  KEYS[4] task (HASH)   KEYS[5] idempotency record (HASH), or the task again where there is no key
  ARGV[6] task id   ARGV[7] fingerprint of the body, '' without a key   ARGV[8] seconds to keep it
  ARGV[9] response, JSON   ARGV[10] data of user_message   ARGV[11] metadata, JSON
  ARGV[12..] fields of the task, flat

  Returns {'created'}, also when repeated for the same task, {'replayed', response, task id} or
  {'conflict'}. ]]
local task_id, fingerprint, response = ARGV[6], ARGV[7], ARGV[9]

if redis.call('EXISTS', KEYS[4]) == 1 then
  return { 'created' }
end

if fingerprint ~= '' then
  local record = redis.call('HMGET', KEYS[5], 'fingerprint', 'response', 'task_id')
  if record[1] then
    return record[1] == fingerprint and { 'replayed', record[2], record[3] } or { 'conflict' }
  end
  redis.call('HSET', KEYS[5], 'fingerprint', fingerprint, 'response', response,
    'task_id', task_id)
  redis.call('EXPIRE', KEYS[5], ARGV[8])
end

local fields = { 'status', 'queued', 'attempt', '0', 'seq', '1', 'updated', whole(now) }
for i = 12, #ARGV do
  fields[#fields + 1] = ARGV[i]
end
redis.call('HSET', KEYS[4], unpack(fields))
redis.call('SADD', open, task_id)
append('user_message', ARGV[10], task_id, ARGV[11])
commit()
return { 'created' }
