#!lua flags=allow-oom
-- Leases examples to one step. The step that holds a lease gets it again; with `grow`, the id of a call, the lease grows, once for
-- each id. Examples that are stale, expired or deleted are rejected on the way. A new lease takes the job that waits.
--include _1_keys _2_feedback _3_examples _4_lease
local LOOKED_AT = 1000
local refusal = fenced()
if refusal then return refusal end

local function signals(id, shadow)
  if shadow then return shadow end
  local out = {}
  each_reward(id, function(_, _, fb)
    out[#out + 1] = call('HMGET', k_fb(fb), 'target', 'choice', 'metric', 'value', 'tenant', 'key_id')
    table.insert(out[#out], fb)
  end)
  return out
end

local function describe(ids)
  local out = {}
  for i, id in ipairs(ids) do
    local e = call('HMGET', k_example(id), 'kind', 'names', 'shadow')
    out[i] = {id, e[1], e[2], signals(id, e[3])}
  end
  return out
end

-- The ids of an episode's turns that still exist, in order.
local function turns(tenant, episode)
  local found, order, ids = call('HGETALL', k_episode(tenant, episode)), {}, {}
  for i = 1, #found, 2 do
    local turn = tonumber(found[i])
    if turn and call('EXISTS', k_meta(found[i + 1])) == 1 then
      order[#order + 1] = turn
      ids[turn] = found[i + 1]
    end
  end
  table.sort(order)
  for i, turn in ipairs(order) do order[i] = ids[turn] end
  return order
end

-- The ids of an example's interactions, or nil if a group is no longer complete.
local function interactions_of(id, e)
  if e.kind == 'episode' then return turns(e.tenant, e.target) end
  if e.kind == 'group' then
    if e.shadow then return {id} end
    return rewards_of(id, e.tenant, e.metric, tonumber(e.n)) and {id}
  end
  if e.kind ~= 'pair' then return {e.target} end
  local ids = {}
  for i, one in ipairs(preferred(feedback(call('HGET', k_slots(e.tenant, e.target), e.field)).value)) do ids[i] = one[1] end
  return ids
end

-- {id, turn} of each interaction; or nil and the reason to reject the example (no reason: its rewards stay pending).
local function named_by(id, oldest)
  local r = call('HMGET', k_example(id), 'kind', 'policy', 'tenant', 'target', 'field', 'metric', 'n', 'shadow')
  local e = {kind = r[1], policy = r[2], tenant = r[3], target = r[4], field = r[5], metric = r[6], n = r[7], shadow = r[8]}
  local ids, names = interactions_of(id, e), {}
  if not ids then return nil end
  for i, item in ipairs(ids) do
    local m = call('HMGET', k_meta(item), 'policy', 'version', 'turn')
    if not m[1] then return nil, call('EXISTS', k_tombstone(item)) == 1 and 'deleted' or 'interaction_expired' end
    if m[1] == e.policy and tonumber(m[2]) < oldest then return nil, 'stale' end
    names[i] = {item, m[3] and tonumber(m[3]) or cjson.null}
  end
  if #names == 0 then return nil, 'interaction_expired' end
  return names
end

local function take(id, kind, names)
  for _, name in ipairs(names) do hold(name[1]) end
  call('ZREM', k_ready(A.policy, kind), id)
  call('HSET', k_example(id), 'state', 'leased', 'names', cjson.encode(names))
  each_reward(id, function(_, _, fb)
    call('HSET', k_fb(fb), 'state', 'leased')
    call('ZREM', DUE, fb)
  end)
end

-- Takes from each kind's queue in turn, so that no kind crowds out another.
local function choose(kinds)
  local chosen, place, looked, found = {}, {}, 0, true
  while found do
    found = false
    for _, kind in ipairs(kinds) do
      if #chosen == A.max_examples or looked == LOOKED_AT then return chosen end
      local at = place[kind] or 0
      local id = call('ZRANGE', k_ready(A.policy, kind), at, at)[1]
      if id then
        found, looked = true, looked + 1
        local names, reason = named_by(id, A.kinds[kind])
        if names then
          chosen[#chosen + 1] = {id, kind, names}
          place[kind] = at + 1
        elseif reason then
          dismiss(id, reason)
        else
          withdraw(id)
        end
      end
    end
  end
  return chosen
end

local key = k_lease(A.policy)
local held = call('HMGET', key, 'step', 'version', 'grown')
if held[1] and tonumber(held[1]) ~= A.step then return conflict('step ' .. held[1] .. ' of ' .. A.policy .. ' holds the lease') end
if A.grow and not held[1] then return conflict('step ' .. whole(A.step) .. ' of ' .. A.policy .. ' holds no lease') end
if A.grow and held[2] then return conflict('step ' .. held[1] .. ' of ' .. A.policy .. ' is committed') end
local ids = leased(A.policy)
if held[1] and (not A.grow or held[3] == A.grow) then return describe(ids) end

local kinds = {}
for kind in pairs(A.kinds) do kinds[#kinds + 1] = kind end
table.sort(kinds)
local chosen = choose(kinds)
if not held[1] and (#chosen == 0 or #chosen < A.min_examples) then return false end
for _, one in ipairs(chosen) do
  take(unpack(one))
  ids[#ids + 1] = one[1]
end
call('HSET', key, 'step', whole(A.step), 'examples', cjson.encode(ids))
if A.grow then
  call('HSET', key, 'grown', A.grow)
elseif call('EXISTS', k_job(A.policy)) == 1 then
  call('HSET', key, 'job', call('GETDEL', k_job(A.policy)))
end
return describe(ids)
