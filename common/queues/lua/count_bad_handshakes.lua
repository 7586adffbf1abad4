--[[ Counts bad handshakes of an address; its minute begins with the first of them.

  KEYS[1] their number (STRING)   ARGV[1] how many more   ARGV[2] the minute, ms
  Returns {number, ms until the minute is over}. ]]
local count = redis.call('INCRBY', KEYS[1], ARGV[1])
if redis.call('PTTL', KEYS[1]) < 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return { count, redis.call('PTTL', KEYS[1]) }
