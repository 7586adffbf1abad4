--[[ Ends a task as failed, for a reason that the orchestrator found itself; the first end wins.

  Beside _session.lua:
  KEYS[5..8] the task's keys (_task.lua)
  ARGV[6] task id   ARGV[7] error type   ARGV[8] message

  Returns {1 if it has ended for this reason, now or in an earlier call, 0 if it had ended otherwise
  or is unknown, ids of tasks whose turn has come}. ]]
local task = load_task(ARGV[6], FIRST_KEY)
if not task.known or TERMINAL[task.status] then
  local error = task.known and redis.call('HGET', task.key, 'error')
  local same = error and string.find(error, '"error_type":"' .. ARGV[7] .. '"', 1, true)
  return { same and 1 or 0, {} }
end
end_with_error(task, 'failed', 'task_failed', ARGV[7], ARGV[8])
save(task)
commit()
return { 1, released }
