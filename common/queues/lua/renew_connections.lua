--[[ Renews the leases of connections that an instance holds; put behind _common.lua.

  KEYS[1…] connections of a tenant or of an address (ZSET: id, by the end of its lease, unix ms)
  ARGV[1] lease, ms   ARGV[2…] for each key: how many ids follow, and these   Returns how many keys.

  One that is missing is put back, whatever the limit: the instance was away for longer than its
  lease, or Redis was, and its connection is open all the same. ]]
local lease = tonumber(ARGV[1])
local at = 2
for _, key in ipairs(KEYS) do
  local count = tonumber(ARGV[at])
  local members = {}
  for i = at + 1, at + count do
    members[#members + 1] = now + lease
    members[#members + 1] = ARGV[i]
  end
  redis.call('ZADD', key, unpack(members))
  redis.call('PEXPIRE', key, lease)
  at = at + count + 1
end
return #KEYS
