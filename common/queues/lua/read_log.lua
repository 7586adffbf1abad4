--[[ Reads kept events, together with the state of the log at that moment.

  KEYS[1] meta (HASH)   KEYS[2] log (STREAM)
  ARGV[1] offset to read after   ARGV[2] events at the most
  ARGV[3] bytes of entries at the most; one event is read whatever its size
  Returns {epoch ('': no log), last offset, oldest offset kept (0: none), offset, entry, …}. ]]
local state = redis.call('HMGET', KEYS[1], 'epoch', 'last')
if not state[1] then
  return { '', 0, 0 }
end
local function offset_of(item)
  return string.match(item[1], '^%d+')
end
local oldest = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
local found = { state[1], tonumber(state[2]), oldest and tonumber(offset_of(oldest)) or 0 }
local wanted, room, after = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[1]
-- What is read here and does not fit costs Redis its time too: a few at once, fewer at first.
local step = 1
while wanted > 0 do
  local asked = math.min(step, wanted)
  local items = redis.call('XRANGE', KEYS[2], '(' .. after .. '-0', '+', 'COUNT', asked)
  for _, item in ipairs(items) do
    after, room = offset_of(item), room - #item[2][2]
    if room < 0 and #found > 3 then
      return found
    end
    found[#found + 1] = tonumber(after)
    found[#found + 1] = item[2][2]
  end
  if #items < asked then
    return found
  end
  wanted, step = wanted - asked, math.min(2 * step, 16)
end
return found
