--[[ Reads kept events, together with the state of the log at that moment.

  KEYS[1] meta (HASH)   KEYS[2] log (STREAM)
  ARGV[1] offset to read after   ARGV[2] events at the most
  Returns {epoch ('': no log), last offset, oldest offset kept (0: none), offset, entry, …}. ]]
local state = redis.call('HMGET', KEYS[1], 'epoch', 'last')
if not state[1] then
  return { '', 0, 0 }
end
local function offset_of(item)
  return tonumber(string.match(item[1], '^%d+'))
end
local oldest = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
local found = { state[1], tonumber(state[2]), oldest and offset_of(oldest) or 0 }
for _, item in ipairs(redis.call('XRANGE', KEYS[2], '(' .. ARGV[1] .. '-0', '+', 'COUNT', ARGV[2])) do
  found[#found + 1] = offset_of(item)
  found[#found + 1] = item[2][2]
end
return found
