--[[ Begins to stop a task, or ends it where no worker has reported (contract, section 5, Cancel).

  Beside _session.lua:
  KEYS[5..8] the task's keys (_task.lua)
  ARGV[6] task id   ARGV[7] reason   ARGV[8] grace, ms

  Returns {status before, status after, ids of tasks whose turn has come}; {'', '', {}} for an
  unknown task. ]]
local task = load_task(ARGV[6], FIRST_KEY)
if not task.known then
  return { '', '', {} }
end

local before = task.status
if before == 'queued' or before == 'running' then
  task.reason = ARGV[7]
  set(task, 'reason', task.reason)
  if before == 'queued' then
    end_cancelled(task)
  else
    task.cancel_at = now + tonumber(ARGV[8])
    set_status(task, 'cancelling')
    set(task, 'cancel_at', whole(task.cancel_at))
    tell_status(task, 'cancelling', reason_member(task))
  end
  save(task)
  commit()
end
return { before, task.status, released }
