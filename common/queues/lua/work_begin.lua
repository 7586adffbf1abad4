--[[ Counts a new attempt of a task, once for each taking of its entry, however often it is asked.
  KEYS[1] attempt counter of the task   KEYS[2] the number that this taking was given (STRING)
  ARGV[1] seconds to keep the counter   ARGV[2] seconds to remember the taking
  Returns the attempt.

  Asked again after a lost reply, or so late that the attempt is running already, it repeats what
  it said. The taking is noted first: whatever fails there has counted nothing. ]]
local given = redis.call("GET", KEYS[2])
if given then
  return tonumber(given)
end
local attempt = tonumber(redis.call("GET", KEYS[1]) or "0") + 1
redis.call("SET", KEYS[2], attempt, "EX", ARGV[2])
redis.call("INCR", KEYS[1])
redis.call("EXPIRE", KEYS[1], ARGV[1])
return attempt
