-- Groups: from rated choices to the policy's stream, and out of it.
local LONE_KEPT = 10000

-- The pending rewards [n] of a natural group as (field, fb, score), or nil while one is missing.
local function rewards_of(id, tenant, metric, n, state)
  local fields = {}
  for choice = 0, n - 1 do fields[choice + 1] = choice .. ':' .. metric end
  local held = call('HMGET', k_slots(tenant, id), unpack(fields))
  for i = 1, n do
    if not held[i] or held[i] == 'used' then return nil end
  end
  local found = {}
  for i = 1, n do
    local f = call('HMGET', k_fb(held[i]), 'state', 'score')
    if f[1] ~= state or not f[2] or f[2] == '' then return nil end
    found[i] = {fields[i], held[i], f[2]}
  end
  return found
end

-- After a reward met its interaction: the group becomes ready once, a lone score makes its prompt a candidate.
local function rated(id)
  local m = call('HMGET', k_meta(id), 'tenant', 'policy', 'n', 'trainable', 'prompt', 'metric', 'seq', 'version')
  if not m[1] then return end
  local n = tonumber(m[3])
  if n < 2 then
    if m[5] == '1' and rewards_of(id, m[1], m[6], 1, 'pending') then
      call('ZADD', k_lone(m[2]), m[7], id)
      call('ZREMRANGEBYRANK', k_lone(m[2]), 0, -LONE_KEPT - 1)
    end
    return
  end
  if m[4] ~= '1' or call('EXISTS', k_group(id)) == 1 or not rewards_of(id, m[1], m[6], n, 'pending') then return end
  local entry = call('XADD', k_ready(m[2]), '*', 'g', id)
  call('HSET', k_group(id), 'state', 'ready', 'kind', 'natural', 'policy', m[2], 'tenant', m[1],
    'metric', m[6], 'n', m[3], 'version', m[8], 'entry', entry)
end

-- Takes a group off its stream; acknowledges it if it had been delivered.
local function withdraw(id)
  local g = call('HMGET', k_group(id), 'policy', 'entry')
  if not g[1] then return end
  redis.pcall('XACK', k_ready(g[1]), 'learner', g[2])
  call('XDEL', k_ready(g[1]), g[2])
  call('DEL', k_group(id))
end

local function each_reward(id, act)
  local g = call('HMGET', k_group(id), 'kind', 'tenant', 'metric', 'n')
  if g[1] ~= 'natural' then return end
  local slots = k_slots(g[2], id)
  for choice = 0, tonumber(g[4]) - 1 do
    local field = choice .. ':' .. g[3]
    local fb = call('HGET', slots, field)
    if fb and fb ~= 'used' then act(slots, field, fb) end
  end
  retire(slots)
end

-- The group will not be learned from: its rewards are rejected, revisions that waited take their slots.
local function dismiss(id, reason)
  each_reward(id, function(slots, field, fb)
    settle(fb, 'rejected', reason)
    promote(slots, field)
  end)
  local shadow = call('HGET', k_group(id), 'kind') == 'shadow'
  withdraw(id)
  if shadow then call('DEL', k_blob(id), k_meta(id)) else rated(id) end
end
