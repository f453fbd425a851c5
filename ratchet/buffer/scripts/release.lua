#!lua flags=allow-oom
-- The step is given up before its commit: its groups are ready again, its rewards pending again.
local key = k_lease(A.policy)
if call('HGET', key, 'version') then return conflict('the step is committed; publish or refuse its candidate') end

local function back(id)
  each_reward(id, function(slots, field, fb)
    if call('HEXISTS', slots, 'w:' .. field) == 1 then
      settle(fb, 'rejected', 'superseded')
      promote(slots, field)
    else
      call('HSET', k_fb(fb), 'state', 'pending')
      call('ZADD', DUE, call('HGET', k_fb(fb), 'due'), fb)
    end
  end)
  call('HSET', k_group(id), 'state', 'ready')
end

for _, id in ipairs(leased(A.policy)) do
  if call('EXISTS', k_meta(id)) == 1 then back(id) else dismiss(id, 'deleted') end
  let_go(id)
end
return call('DEL', key)
