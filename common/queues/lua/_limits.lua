--[[ What a tenant's messages are held to. Behind _tenants.lua and _turns.lua; takes
  nothing more.

  refusal_of(tenant, limits): nil, or {'rate_limited' | 'quota_exceeded' | 'queue_full', limit,
    seconds until there is room}. limits: per_minute, per_hour, tokens_per_day, max_queued; nil is
    unlimited. A full queue from which some may go is not full: they go first, here and now.
  count_request(tenant, limits, id): a message was let in. Its moment is kept for as long as a limit
    asks for it, which for a tenant without such a limit is not at all. ]]
local MINUTE, HOUR = 60000000, 3600000000  -- µs
local FORGOTTEN_AT_ONCE = 1000  -- lest Redis stand still after a burst; counting goes by the window

local function seconds_until(at)
  return math.max(1, math.ceil((at - micros) / 1000000))
end

-- Seconds until another request fits, or nil if one fits now.
local function full_for(requests, limit, window)
  if not limit then
    return nil
  end
  local over = redis.call('ZCOUNT', requests, micros - window + 1, '+inf') - limit
  if over < 0 then
    return nil
  end
  local leaving = redis.call('ZRANGEBYSCORE', requests, micros - window + 1, '+inf',
    'WITHSCORES', 'LIMIT', over, 1)
  return seconds_until(tonumber(leaving[2]) + window)
end

local function lined_up(tenant)
  local count = 0
  for _, lane in ipairs(tenant.lines) do
    count = count + redis.call('ZCARD', lane)
  end
  return count
end

local function is_full(tenant, max_queued)
  return redis.call('SCARD', tenant.held) + lined_up(tenant) >= max_queued
end

local function refusal_of(tenant, limits)
  local minute = full_for(tenant.requests, limits.per_minute, MINUTE)
  local hour = full_for(tenant.requests, limits.per_hour, HOUR)
  if hour and hour >= (minute or 0) then
    return { 'rate_limited', limits.per_hour, hour }
  elseif minute then
    return { 'rate_limited', limits.per_minute, minute }
  end
  if limits.tokens_per_day then
    local spent = redis.call('HMGET', tenant.usage, 'input_tokens', 'output_tokens')
    if (tonumber(spent[1]) or 0) + (tonumber(spent[2]) or 0) >= limits.tokens_per_day then
      local midnight = (math.floor(now / DAY) + 1) * DAY
      return { 'quota_exceeded', limits.tokens_per_day, seconds_until(midnight * 1000) }
    end
  end
  if limits.max_queued and is_full(tenant, limits.max_queued) then
    line_up(tenant)  -- by its newest terms
    local _, more = nil, 1
    while more == 1 and is_full(tenant, limits.max_queued) do
      _, more = move()
    end
    if is_full(tenant, limits.max_queued) then
      return { 'queue_full', limits.max_queued, 1 }
    end
  end
  return nil
end

local function count_request(tenant, limits, id)
  used(tenant, 'requests', 1)
  local window = limits.per_hour and HOUR or limits.per_minute and MINUTE
  if window then
    local old = redis.call('ZRANGEBYSCORE', tenant.requests, '-inf', whole(micros - window),
      'LIMIT', 0, FORGOTTEN_AT_ONCE)
    if #old > 0 then
      redis.call('ZREM', tenant.requests, unpack(old))
    end
    redis.call('ZADD', tenant.requests, whole(micros), id)
    redis.call('PEXPIRE', tenant.requests, window / 1000)
  end
end
