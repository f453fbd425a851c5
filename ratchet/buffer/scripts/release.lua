#!lua flags=allow-oom
-- The step is given up before its commit: its examples are ready again, its rewards pending again.
--include _1_keys _2_feedback _3_examples _4_lease
local refusal = fenced()
if refusal then return refusal end
local key = k_lease(A.policy)
if call('HGET', key, 'version') then return conflict('the step is committed; publish or refuse its candidate') end

local function restore(id)
  local revised = {}
  each_reward(id, function(slots, field, fb)
    if call('HEXISTS', slots, 'w:' .. field) == 1 then
      settle(fb, 'rejected', 'superseded')
      revised[#revised + 1] = promote(slots, field)
    else
      call('HSET', k_fb(fb), 'state', 'pending')
      call('ZADD', DUE, call('HGET', k_fb(fb), 'due'), fb)
    end
  end)
  if #revised > 0 then
    withdraw(id)
    return join_promoted(revised)
  end
  local e = call('HMGET', k_example(id), 'kind', 'seq')
  for _, name in ipairs(names_of(id)) do let_go(name[1]) end
  call('HDEL', k_example(id), 'names')
  call('HSET', k_example(id), 'state', 'ready')
  call('ZADD', k_ready(A.policy, e[1]), e[2], id)
end

-- Whether none of its interactions was deleted meanwhile; an episode goes on without such a turn.
local function intact(id)
  local names, there = names_of(id), 0
  for _, name in ipairs(names) do there = there + call('EXISTS', k_meta(name[1])) end
  return there == #names or (there > 0 and call('HGET', k_example(id), 'kind') == 'episode')
end

for _, id in ipairs(leased(A.policy)) do
  if intact(id) then restore(id) else dismiss(id, 'deleted') end
end
return call('DEL', key)
