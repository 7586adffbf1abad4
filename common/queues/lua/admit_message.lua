--[[ Lets a message of a tenant in, or says which of the tenant's limits it would exceed. Behind
  _clock.lua. What is let in is counted at once, so that no two can have the same last place; a
  message that comes to nothing after all is taken back (take_back.lua).

  KEYS[1] terms (HASH: max_running, weight)      KEYS[2] arriving (ZSET, member -> since, ms)
  KEYS[3] held (SET: wait in their session)      KEYS[4..6] lines (ZSETs), high normal low
  KEYS[7] running (SET)   KEYS[8] requests (ZSET, request -> time, µs)   KEYS[9] usage, up to the day
  ARGV[1] member   ARGV[2] request: what repetitions of this message have in common
  ARGV[3..6] requests a minute, an hour; tokens a day; tasks that may wait: '' is unlimited
  ARGV[7] max_running, '' is unlimited   ARGV[8] weight
  ARGV[9] for how long an arrival counts that nothing more is heard of, ms

  Returns {'admitted', mark, 1 if the request was not counted before} for take_back.lua, or
  {'rate_limited' | 'quota_exceeded' | 'queue_full', limit, seconds until there is room, what may
   change that right now: 1 if some in line may go, as soon as there is room in the work streams,
   2 if some are just arriving, 3 both, 0 nothing}. ]]
local terms, arriving, held, running, requests = KEYS[1], KEYS[2], KEYS[3], KEYS[7], KEYS[8]
local member, request = ARGV[1], ARGV[2]
local MINUTE, HOUR = 60000000, 3600000000
local SHORTLY = 300  -- ms; what arrives for longer is waited for by nobody: its instance has died
local KEEP_TERMS = 7 * 24 * 3600

local function seconds_until(at)
  return math.max(1, math.ceil((at - micros) / 1000000))
end

-- Seconds until another request fits, or nil if one fits now.
local function full_for(limit, window)
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

local function lined_up()
  return redis.call('ZCARD', KEYS[4]) + redis.call('ZCARD', KEYS[5]) + redis.call('ZCARD', KEYS[6])
end

redis.call('HSET', terms, 'max_running', ARGV[7], 'weight', ARGV[8])
redis.call('EXPIRE', terms, KEEP_TERMS)

local per_minute, per_hour = tonumber(ARGV[3]), tonumber(ARGV[4])
local per_day, max_queued, max_running = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])

if redis.call('ZSCORE', arriving, member) then  -- this very command came twice
  return { 'admitted', redis.call('ZSCORE', requests, request) or '', 0 }
end

redis.call('ZREMRANGEBYSCORE', requests, '-inf', micros - HOUR)
local known = redis.call('ZSCORE', requests, request)
if not known then
  local minute, hour = full_for(per_minute, MINUTE), full_for(per_hour, HOUR)
  if hour and hour >= (minute or 0) then
    return { 'rate_limited', per_hour, hour, 0 }
  elseif minute then
    return { 'rate_limited', per_minute, minute, 0 }
  end
end

if per_day then
  local used = redis.call('HMGET', KEYS[9] .. day_of(now), 'input_tokens', 'output_tokens')
  if (tonumber(used[1]) or 0) + (tonumber(used[2]) or 0) >= per_day then
    local midnight = (math.floor(now / 86400000) + 1) * 86400000
    return { 'quota_exceeded', per_day, seconds_until(midnight * 1000), 0 }
  end
end

redis.call('ZREMRANGEBYSCORE', arriving, '-inf', now - tonumber(ARGV[9]))
if max_queued then
  local coming, waiting = redis.call('ZCARD', arriving), lined_up()
  if coming + redis.call('SCARD', held) + waiting >= max_queued then
    local may_run = waiting > 0
      and (not max_running or redis.call('SCARD', running) < max_running)
    local is_coming = redis.call('ZCOUNT', arriving, now - SHORTLY, '+inf') > 0
    return { 'queue_full', max_queued, 1, (may_run and 1 or 0) + (is_coming and 2 or 0) }
  end
end

local mark = ''
if per_minute or per_hour then
  -- A time of its own for each call that relies on this request: only the last may take it back.
  mark = known and redis.call('ZINCRBY', requests, 1, request) or string.format('%.0f', micros)
  redis.call('ZADD', requests, mark, request)
  redis.call('PEXPIRE', requests, HOUR / 1000)
end
redis.call('ZADD', arriving, now, member)
redis.call('PEXPIRE', arriving, ARGV[9])
return { 'admitted', mark, known and 0 or 1 }
