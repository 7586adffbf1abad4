--[[ Claims entries that are idle past the visibility timeout they carry: those of other consumers,
  and this one's own that it has in its hands no longer.
  KEYS[1] work stream
  ARGV[1] group   ARGV[2] consumer   ARGV[3] how many at most   ARGV[4] look only at entries idle
  this long, ms   ARGV[5] visibility timeout of an entry that names none, ms   ARGV[6] how many to
  look at   ARGV[7..] ids of the entries in this consumer's hands, which are left alone
  Returns {{id, fields}, ...}, oldest first, and the smallest visibility timeout seen (0: none).

  XAUTOCLAIM wants one idle time for all entries, and on Redis 6.2 gives nils for deleted ones;
  here each entry's own timeout counts, and what was deleted while pending is cleared away. ]]
local TAIL = 512  -- bytes; the orchestrator writes the timeout near the end of the action

-- Between a number outside of all braces and the end there is no other brace but the last, and
-- within a JSON string no quote stands unescaped: what matches is the action's own field.
local function timeout_of(action)
  local ms = string.match(
    string.sub(action, -TAIL), '"visibility_timeout_ms":%s*(%d+)%s*%f[,}][^{}]*}%s*$')
  if ms then
    return tonumber(ms)
  end
  local readable, decoded = pcall(cjson.decode, action)
  return readable and type(decoded) == "table" and tonumber(decoded.visibility_timeout_ms)
end

local function visibility(fields)
  for i = 1, #fields, 2 do
    if fields[i] == "action" then
      return timeout_of(fields[i + 1]) or tonumber(ARGV[5])
    end
  end
  return tonumber(ARGV[5])
end

local held = {}
for i = 7, #ARGV do
  held[ARGV[i]] = true
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
  elseif holder ~= ARGV[2] or not held[id] then
    local own = visibility(entry[2])
    smallest = smallest == 0 and own or math.min(smallest, own)
    if idle_ms >= own then
      redis.call("XCLAIM", KEYS[1], ARGV[1], ARGV[2], 0, id, "JUSTID")
      claimed[#claimed + 1] = entry
    end
  end
end
return { claimed, math.floor(smallest) }
