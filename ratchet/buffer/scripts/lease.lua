#!lua flags=allow-oom
-- Groups for one step, which is then what was asked for. The step that holds a lease gets it again; groups that cannot teach are
-- rejected on the way.
local LOOKED_AT = 1000
local stream, key = k_ready(A.policy), k_lease(A.policy)

local function describe(ids)
  local out = {}
  for i, id in ipairs(ids) do
    local g = call('HMGET', k_group(id), 'kind', 'rewards')
    out[i] = {id, g[1], g[2]}
  end
  return out
end

local held = call('HGET', key, 'step')
if held then
  if tonumber(held) ~= A.step then return conflict('step ' .. held .. ' of ' .. A.policy .. ' holds the lease') end
  return describe(leased(A.policy))
end

-- Scores [n] as text, so that none is rounded on its way through Lua; or the reason there are none.
local function scores(id)
  local g = call('HMGET', k_group(id), 'kind', 'version', 'tenant', 'metric', 'n', 'rewards')
  if tonumber(g[2]) < A.oldest then return nil, 'stale' end
  if call('EXISTS', k_blob(id)) == 0 then return nil, 'interaction_expired' end
  local list = {}
  if g[1] == 'shadow' then
    list = cjson.decode(g[6])
  else
    local rewards = rewards_of(id, g[3], g[4], tonumber(g[5]), 'pending')
    if not rewards then return nil, 'incomplete' end
    for i, reward in ipairs(rewards) do list[i] = reward[3] end
  end
  for i = 2, #list do
    if tonumber(list[i]) ~= tonumber(list[1]) then return list end
  end
  return nil, 'zero_spread'
end

local chosen, rewards = {}, {}
local function consider(entry, id)
  if call('EXISTS', k_group(id)) == 0 then
    call('XACK', stream, 'learner', entry)
    call('XDEL', stream, entry)
    return
  end
  local list, reason = scores(id)
  if list then
    chosen[#chosen + 1] = id
    rewards[id] = list
  elseif reason == 'incomplete' then
    withdraw(id)
  else
    dismiss(id, reason)
  end
end

redis.pcall('XGROUP', 'CREATE', stream, 'learner', '0', 'MKSTREAM')
-- First what was delivered and released, oldest first, then what is new.
local cursor, looked = '0', 0
while #chosen < A.max_groups and looked < LOOKED_AT do
  looked = looked + 1
  local got = call('XREADGROUP', 'GROUP', 'learner', 'learner', 'COUNT', 1, 'STREAMS', stream, cursor)
  local entry = got and got[1] and got[1][2][1]
  if entry then
    if cursor ~= '>' then cursor = entry[1] end
    consider(entry[1], entry[2] and entry[2][2] or '')
  elseif cursor == '>' then
    break
  else
    cursor = '>'
  end
end
if #chosen == 0 or #chosen < A.min_groups then return false end

-- By id, so that the same groups make the same batch in whatever order they came.
table.sort(chosen)
for _, id in ipairs(chosen) do
  call('HSET', k_group(id), 'state', 'leased', 'rewards', cjson.encode(rewards[id]))
  call('PERSIST', k_blob(id))
  call('PERSIST', k_meta(id))
  each_reward(id, function(_, _, fb)
    call('HSET', k_fb(fb), 'state', 'leased')
    call('ZREM', DUE, fb)
  end)
end
call('HSET', key, 'step', whole(A.step), 'groups', cjson.encode(chosen))
call('DEL', k_job(A.policy))
return describe(chosen)
