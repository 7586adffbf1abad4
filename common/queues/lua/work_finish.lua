--[[ Removes an entry whose task has been reported to its end, if the attempt still is ours.
  KEYS[1] work stream   KEYS[2] attempt counter of the task
  ARGV[1] group   ARGV[2] entry id   ARGV[3] attempt
  Returns 1 if the attempt still is ours (also when repeated), 0 if another one has begun since. ]]
if redis.call("GET", KEYS[2]) ~= ARGV[3] then
  return 0
end
redis.call("XACK", KEYS[1], ARGV[1], ARGV[2])
redis.call("XDEL", KEYS[1], ARGV[2])
return 1
