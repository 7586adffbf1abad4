--[[ Notes in the task that it has entered a work stream.

  KEYS[1] task (HASH)   ARGV[1] deadline, unix ms   ARGV[2] entry id   ARGV[3] round
  Returns 1; 0 if the task has ended, or is unknown. ]]
local status = redis.call('HGET', KEYS[1], 'status')
if not status or status == 'completed' or status == 'failed' or status == 'cancelled'
    or status == 'timeout' then
  return 0
end
redis.call('HSET', KEYS[1], 'deadline', ARGV[1], 'entry', ARGV[2], 'delivered', ARGV[3])
return 1
