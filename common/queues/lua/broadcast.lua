--[[ Tells a broadcast to every instance, once for an action id.

  KEYS[1] mark of the action (STRING)
  ARGV[1] seconds to remember it   ARGV[2] channel   ARGV[3] message
  Returns 1 if it was told, 0 if it had been before. ]]
if not redis.call('SET', KEYS[1], '1', 'NX', 'EX', ARGV[1]) then
  return 0
end
redis.call('PUBLISH', ARGV[2], ARGV[3])
return 1
