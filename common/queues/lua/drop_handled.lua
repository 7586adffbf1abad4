--[[ Deletes entries that were taken and acked, but not deleted: whoever did so died in between.

  KEYS[1] stream   ARGV[1] group   ARGV[2] entries to look at
  Returns how many were deleted. ]]
local delivered
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local facts = {}
  for i = 1, #group, 2 do
    facts[group[i]] = group[i + 1]
  end
  if facts.name == ARGV[1] then
    delivered = facts['last-delivered-id']
  end
end
if not delivered or delivered == '0-0' then
  return 0
end
local dropped = 0
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', delivered, 'COUNT', ARGV[2])) do
  if #redis.call('XPENDING', KEYS[1], ARGV[1], entry[1], entry[1], 1) == 0 then
    dropped = dropped + redis.call('XDEL', KEYS[1], entry[1])
  end
end
return dropped
