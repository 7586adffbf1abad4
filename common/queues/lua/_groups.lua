--[[ taken_up_to(stream, group): the id of the last entry that anybody of a group has taken; '0-0' if
  none, or if there is no such stream or group. It takes nothing more. ]]
local function taken_up_to(stream, group)
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  for _, flat in ipairs(groups.err and {} or groups) do
    local facts = {}
    for i = 1, #flat, 2 do
      facts[flat[i]] = flat[i + 1]
    end
    if facts.name == group then
      return facts['last-delivered-id']
    end
  end
  return '0-0'
end
