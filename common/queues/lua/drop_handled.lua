--[[ Deletes entries that were taken and acked, but not deleted: whoever did so died in between. Behind
  _groups.lua.

  KEYS[1] stream   ARGV[1] group   ARGV[2] entries to look at
  Returns how many were deleted. ]]
local dropped, taken = 0, taken_up_to(KEYS[1], ARGV[1])
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', taken, 'COUNT', ARGV[2])) do
  if #redis.call('XPENDING', KEYS[1], ARGV[1], entry[1], entry[1], 1) == 0 then
    dropped = dropped + redis.call('XDEL', KEYS[1], entry[1])
  end
end
return dropped
