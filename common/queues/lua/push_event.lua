--[[ Puts a back-end's event into the session's log, once for an action id.

  Beside _session.lua:
  KEYS[5] mark of the action (STRING)
  ARGV[6] seconds to remember the action   ARGV[7] type   ARGV[8] data, JSON   ARGV[9] metadata

  Returns 1 if it was put in, 0 if it had been before. ]]
if redis.call('EXISTS', KEYS[5]) == 1 then
  return 0
end
open_log()  -- before the mark: what cannot be put in now is put in when it is tried again
redis.call('SET', KEYS[5], '1', 'EX', ARGV[6])
append(ARGV[7], ARGV[8], nil, ARGV[9])
commit()
return 1
