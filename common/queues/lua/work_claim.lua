--[[ Claims entries of other consumers that are idle past the visibility timeout they carry.
  KEYS[1] work stream
  ARGV[1] group   ARGV[2] consumer   ARGV[3] how many at most   ARGV[4] look only at entries idle
  this long, ms   ARGV[5] visibility timeout of an entry that names none, ms   ARGV[6] how many to look at
  Returns {{id, fields}, ...}, oldest first, and the smallest visibility timeout seen (0: none).

  XAUTOCLAIM wants one idle time for all entries, and on Redis 6.2 gives nils for deleted ones;
  here each entry's own timeout counts, and what was deleted while pending is cleared away. ]]
local function visibility(fields)
  for i = 1, #fields, 2 do
    if fields[i] == "action" then
      local readable, action = pcall(cjson.decode, fields[i + 1])
      local ms = readable and type(action) == "table" and tonumber(action.visibility_timeout_ms)
      return ms or tonumber(ARGV[5])
    end
  end
  return tonumber(ARGV[5])
end

local claimed, smallest = {}, 0
local idle = redis.call("XPENDING", KEYS[1], ARGV[1], "IDLE", ARGV[4], "-", "+", ARGV[6])
for _, pending in ipairs(idle) do
  local id, holder, idle_ms = pending[1], pending[2], pending[3]
  if #claimed >= tonumber(ARGV[3]) then
    break
  end
  local entry = redis.call("XRANGE", KEYS[1], id, id)[1]
  if not entry then
    redis.call("XACK", KEYS[1], ARGV[1], id)
  elseif holder ~= ARGV[2] then
    local own = visibility(entry[2])
    smallest = smallest == 0 and own or math.min(smallest, own)
    if idle_ms >= own then
      redis.call("XCLAIM", KEYS[1], ARGV[1], ARGV[2], 0, id, "JUSTID")
      claimed[#claimed + 1] = entry
    end
  end
end
return { claimed, math.floor(smallest) }
