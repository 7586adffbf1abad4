--[[ Lets any worker claim an entry at once, by making it look idle for a long time.
  KEYS[1] work stream   KEYS[2] attempt counter of the task
  ARGV[1] group   ARGV[2] consumer who holds what nobody runs   ARGV[3] entry id
  ARGV[4] attempt, empty if none has begun   ARGV[5] idle time to show, ms
  Returns 1 if given back, 0 if another attempt has begun since. ]]
if ARGV[4] ~= "" and redis.call("GET", KEYS[2]) ~= ARGV[4] then
  return 0
end
redis.pcall("XCLAIM", KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], "IDLE", ARGV[5], "JUSTID")
return 1
