#!lua flags=allow-oom
-- The quota of one key: two buckets that refill evenly over a minute, and the leases of its running requests.
-- First `done` ends leases ({id, tokens reserved, tokens used}) and `keep` renews them; then the request `id` is charged, if it may start.
-- The count is in one place, so the bounds hold over any number of gateways. A lease expires if its gateway dies.
--include _1_keys
local MINUTE, LONGEST_DEBT = 60000000, 60
local state, leases = k_quota(A.key), k_leases(A.key)
local t = call('TIME')
local now = t[1] * 1000000 + t[2]
local now_in_ms = math.floor(now / 1000)

local had = call('HMGET', state, 'at', 'requests', 'tokens')
local past = math.max(0, now - (tonumber(had[1]) or now))
local function refilled(most, remaining)
  return most and math.min(most, (tonumber(remaining) or most) + most * past / MINUTE)
end
local requests, tokens = refilled(A.rpm, had[2]), refilled(A.tpm, had[3])

call('ZREMRANGEBYSCORE', leases, '-inf', whole(now_in_ms))
for _, ended in ipairs(A.done or {}) do
  if call('ZREM', leases, ended[1]) == 1 and tokens then
    tokens = math.max(-LONGEST_DEBT * A.tpm, math.min(A.tpm, tokens + ended[2] - ended[3]))
  end
end
local till = whole(now_in_ms + A.lease)
for _, id in ipairs(A.keep or {}) do call('ZADD', leases, 'XX', till, id) end

local refused, wait = '', 0
-- A request that is sent twice, because a connection broke, has its lease already.
if A.id and not (A.leased and call('ZSCORE', leases, A.id)) then
  if A.leased and A.concurrency and call('ZCARD', leases) >= A.concurrency then
    refused = 'concurrency'
  elseif requests and requests < 1 then
    refused, wait = 'requests', (1 - requests) * MINUTE / A.rpm
  elseif tokens and tokens < A.tokens then
    refused, wait = 'tokens', (A.tokens - tokens) * MINUTE / A.tpm
  else
    requests = requests and requests - 1
    tokens = tokens and tokens - A.tokens
    if A.leased then call('ZADD', leases, till, A.id) end
  end
end
call('PEXPIRE', leases, whole(A.lease + 1000))

local function reset(most, remaining) return remaining and math.ceil((most - remaining) * 60000 / most) or 0 end
local until_requests, until_tokens = reset(A.rpm, requests), reset(A.tpm, tokens)
local function exact(x) return string.format('%.17g', x) end
call('HSET', state, 'at', whole(now))
if requests then call('HSET', state, 'requests', exact(requests)) end
if tokens then call('HSET', state, 'tokens', exact(tokens)) end
call('PEXPIRE', state, whole(math.max(until_requests, until_tokens) + 1000))
return {refused, math.ceil(wait / 1000), math.floor(requests or 0), until_requests, math.max(0, math.floor(tokens or 0)), until_tokens}
