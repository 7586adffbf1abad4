--[[ Takes back what admit_message.lua counted for a message that came to nothing.

  KEYS[1] arriving (ZSET)   KEYS[2] requests (ZSET)
  ARGV[1] member   ARGV[2] request   ARGV[3] mark: '' if the request was not counted
  Returns 1 if the request is no longer counted. One that others rely on by now stays. ]]
redis.call('ZREM', KEYS[1], ARGV[1])
local score = ARGV[3] ~= '' and redis.call('ZSCORE', KEYS[2], ARGV[2])
if score and tonumber(score) == tonumber(ARGV[3]) then
  return redis.call('ZREM', KEYS[2], ARGV[2])
end
return 0
