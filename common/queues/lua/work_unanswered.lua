--[[ What is pending for this consumer: after a lost reply it may hold entries it never saw.
  KEYS[1] work stream
  ARGV[1] group   ARGV[2] consumer   ARGV[3] how many at most
  Returns {{id, fields}, ...}; deleted entries are cleared away instead. ]]
local found = {}
for _, pending in ipairs(redis.call("XPENDING", KEYS[1], ARGV[1], "-", "+", ARGV[3], ARGV[2])) do
  local entry = redis.call("XRANGE", KEYS[1], pending[1], pending[1])[1]
  if entry then
    found[#found + 1] = entry
  else
    redis.call("XACK", KEYS[1], ARGV[1], pending[1])
  end
end
return found
