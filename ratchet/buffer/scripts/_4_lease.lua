-- A lease is what one step learns from; it ends by release, reject, publish or refuse.
local function leased(policy)
  local text = call('HGET', k_lease(policy), 'examples')
  return text and cjson.decode(text) or {}
end

-- A learner that was replaced changes nothing more: its token is no longer the current one. The refusal, or nil.
local function fenced()
  if not A.token then return nil end
  local found = call('HMGET', k_learner(A.policy), 'owner', 'token')
  if found[1] and found[2] == whole(A.token) then return nil end
  return conflict('another learner holds ' .. A.policy .. (found[1] and ': ' .. found[1] or ''))
end

local function announce(policy, kind)
  local p = call('HMGET', k_policy(policy), 'live', 'epoch')
  local event = {policy = policy, live = tonumber(p[1]), epoch = tonumber(p[2]), kind = kind}
  call('PUBLISH', 'r:events:' .. (call('GET', 'r:store') or ''), cjson.encode(event))
end

-- The live pointer moves: the version that was live takes the state `former`, readers get an event.
local function point(policy, version, former)
  local old = call('HGET', k_policy(policy), 'live')
  call('HSET', k_states(policy), old, former)
  call('HSET', k_states(policy), whole(version), 'live')
  call('HSET', k_policy(policy), 'live', whole(version))
  local epoch = call('HINCRBY', k_policy(policy), 'epoch', 1)
  call('ZADD', k_lived(policy), epoch, whole(version))
  announce(policy, 'flip')
end
