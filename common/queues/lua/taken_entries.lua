--[[ A page of the entries that workers took and have not finished, without what they say.
  KEYS[1] work stream
  ARGV[1] group   ARGV[2] first id to look at   ARGV[3] how many to look at
  Returns {{id, task id ('': it names none), idle ms}, ...} without those that were deleted
  meanwhile, and the last id that was looked at ('': there are no more). ]]
local function task_of(fields)
  for i = 1, #fields, 2 do
    if fields[i] == 'task_id' then
      return fields[i + 1]
    end
  end
  return ''
end

local found = {}
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[2], '+', ARGV[3])
for _, each in ipairs(pending) do
  local entry = redis.call('XRANGE', KEYS[1], each[1], each[1])[1]
  if entry then
    found[#found + 1] = { each[1], task_of(entry[2]), each[3] }
  end
end
return { found, #pending == tonumber(ARGV[3]) and pending[#pending][1] or '' }
