--[[ Removes a consumer for good, after giving back whatever is still pending for it.
  KEYS[1] work stream
  ARGV[1] group   ARGV[2] consumer   ARGV[3] consumer who holds what nobody runs
  ARGV[4] idle time to show, ms
  Returns how many entries were given back. DELCONSUMER alone would lose them. ]]
local given = 0
for _ = 1, 1000 do
  local left = redis.call("XPENDING", KEYS[1], ARGV[1], "-", "+", 100, ARGV[2])
  if #left == 0 then
    redis.call("XGROUP", "DELCONSUMER", KEYS[1], ARGV[1], ARGV[2])
    break
  end
  for _, pending in ipairs(left) do
    if #redis.call("XRANGE", KEYS[1], pending[1], pending[1]) == 0 then
      redis.call("XACK", KEYS[1], ARGV[1], pending[1])
    else
      redis.call("XCLAIM", KEYS[1], ARGV[1], ARGV[3], 0, pending[1], "IDLE", ARGV[4], "JUSTID")
      given = given + 1
    end
  end
end
return given
