--[[ Makes this consumer known, and removes those that left without a word.
  KEYS[1] work stream
  ARGV[1] group   ARGV[2] consumer   ARGV[3] idle time from which another counts as gone, ms
  Returns how many were removed: only such for which nothing is pending. One that lives after all
  comes back when it next says so.

  Redis 6.2 neither makes a consumer that reads nothing nor notes that it asked; made anew, it is
  as good as seen. ]]
local removed = 0
for _, pairs_ in ipairs(redis.call("XINFO", "CONSUMERS", KEYS[1], ARGV[1])) do
  local consumer = {}
  for i = 1, #pairs_, 2 do
    consumer[pairs_[i]] = pairs_[i + 1]
  end
  local is_me = consumer.name == ARGV[2]
  if consumer.pending == 0 and (is_me or consumer.idle > tonumber(ARGV[3])) then
    redis.call("XGROUP", "DELCONSUMER", KEYS[1], ARGV[1], consumer.name)
    removed = removed + (is_me and 0 or 1)
  end
end
redis.call("XGROUP", "CREATECONSUMER", KEYS[1], ARGV[1], ARGV[2])
return removed
