--[[ Removes consumers that left without a word, if nothing is pending for them.
  KEYS[1] work stream
  ARGV[1] group   ARGV[2] idle time from which a consumer counts as gone, ms
  Returns how many were removed. One that lives after all comes back with its next read. ]]
local removed = 0
for _, pairs_ in ipairs(redis.call("XINFO", "CONSUMERS", KEYS[1], ARGV[1])) do
  local consumer = {}
  for i = 1, #pairs_, 2 do
    consumer[pairs_[i]] = pairs_[i + 1]
  end
  if consumer.pending == 0 and consumer.idle > tonumber(ARGV[2]) then
    redis.call("XGROUP", "DELCONSUMER", KEYS[1], ARGV[1], consumer.name)
    removed = removed + 1
  end
end
return removed
