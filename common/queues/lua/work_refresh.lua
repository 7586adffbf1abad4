--[[ Keeps an entry from being claimed, as long as this worker's attempt is the newest.
  KEYS[1] work stream   KEYS[2] attempt counter of the task
  ARGV[1] group   ARGV[2] consumer   ARGV[3] entry id   ARGV[4] attempt
  Returns 1 if the attempt still is ours, 0 if another one has begun since. ]]
if redis.call("GET", KEYS[2]) ~= ARGV[4] then
  return 0
end
-- pcall: without its group the entry cannot be kept, but the attempt is ours all the same.
redis.pcall("XCLAIM", KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], "JUSTID")
return 1
