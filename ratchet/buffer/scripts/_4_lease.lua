-- A lease is what one step learns from; it ends by release, publish or refuse.
local function leased(policy)
  local text = call('HGET', k_lease(policy), 'groups')
  return text and cjson.decode(text) or {}
end

-- While leased, an interaction outlives its retention, and its deletion; afterwards it does not.
local function let_go(id)
  local expires = call('HGET', k_meta(id), 'expires')
  if not expires then
    call('DEL', k_blob(id))
    return
  end
  call('PEXPIREAT', k_blob(id), expires)
  call('PEXPIREAT', k_meta(id), expires)
end

local function announce(policy, kind)
  local p = call('HMGET', k_policy(policy), 'live', 'epoch')
  local event = {policy = policy, live = tonumber(p[1]), epoch = tonumber(p[2]), kind = kind}
  call('PUBLISH', 'r:events:' .. (call('GET', 'r:store') or ''), cjson.encode(event))
end

-- The live pointer moves: the version left takes `left`, readers are told.
local function point(policy, version, left)
  local old = call('HGET', k_policy(policy), 'live')
  call('HSET', k_states(policy), old, left)
  call('HSET', k_states(policy), whole(version), 'live')
  call('HSET', k_policy(policy), 'live', whole(version))
  local epoch = call('HINCRBY', k_policy(policy), 'epoch', 1)
  call('ZADD', k_lived(policy), epoch, whole(version))
  announce(policy, 'flip')
end
