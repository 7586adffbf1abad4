--[[ Gives a leased item back with the time of its next look, unless somebody wants it earlier.

  KEYS[1] due times (ZSET)   ARGV[1] member   ARGV[2] leased until   ARGV[3] next look, unix ms
  Returns 1 if the time was set. ]]
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if score and tonumber(score) == tonumber(ARGV[2]) + 0.5 then
  redis.call('ZADD', KEYS[1], 'XX', ARGV[3], ARGV[1])
  return 1
end
return 0
