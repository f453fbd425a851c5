#!lua flags=allow-oom
-- A candidate goes live: pointer, states, rewards used, event; unless the pointer moved meanwhile.
--include _1_keys _2_feedback _3_examples _4_lease
local refusal = fenced()
if refusal then return refusal end
local policy, version = A.policy, whole(A.version)
local live, state = call('HGET', k_policy(policy), 'live'), call('HGET', k_states(policy), version)
if live == version and state == 'live' then return 0 end
if state ~= 'candidate' then return conflict(policy .. '@' .. version .. ' is ' .. (state or 'unknown') .. ', not a candidate') end
if live ~= whole(A.expect_live) then return conflict('live is ' .. policy .. '@' .. live .. ', not @' .. whole(A.expect_live)) end

local key = k_lease(policy)
if call('HGET', key, 'version') == version then
  for _, id in ipairs(leased(policy)) do
    each_reward(id, function(slots, field, fb)
      settle(fb, 'used')
      local waiting = call('HGET', slots, 'w:' .. field)
      if waiting then settle(waiting, 'rejected', 'too_late') end
      call('HDEL', slots, 'w:' .. field)
      call('HSET', slots, field, 'used')
      call('HSET', k_fb(fb), 'used_by', policy .. '@' .. version)
    end)
    withdraw(id)
  end
  call('DEL', key)
end
call('HSET', k_verdicts(policy), version, A.verdict)
point(policy, A.version, 'retired')
return 1
