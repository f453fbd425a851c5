#!lua flags=allow-oom
-- A learner takes, renews or gives back its hold on a policy. Returns the fencing token, or false.
-- Clocks jump, so the time without a renewal is added up from look to look, each of which counts for half the term at most: a jump
-- alone ends no hold, and a learner that died loses its hold to one that keeps asking.
--include _1_keys
local key = k_learner(A.policy)
local found = call('HMGET', key, 'owner', 'token', 'at', 'silent', 'term')
local owner, token, now = found[1], found[2], now_ms()

local function keep(mine)
  call('HSET', key, 'owner', A.owner, 'token', mine, 'at', whole(now), 'silent', 0, 'term', whole(A.term))
  return tonumber(mine)
end

if A.how == 'release' then
  if token == whole(A.token) then call('HDEL', key, 'owner') end
  return false
end
if A.how == 'renew' then
  return owner == A.owner and token == whole(A.token) and keep(token)
end
if owner == A.owner then return keep(token) end
if owner then
  local term = tonumber(found[5])
  local silent = found[4] + math.max(0, math.min(now - found[3], term / 2))
  if silent < term then
    call('HSET', key, 'at', whole(now), 'silent', whole(silent))
    return false
  end
end
return keep(whole((tonumber(token) or 0) + 1))
