#!lua flags=allow-oom
-- A candidate did not pass: it never serves, and the rewards it took are rejected.
--include _1_keys _2_feedback _3_examples _4_lease
local refusal = fenced()
if refusal then return refusal end
local policy, version = A.policy, whole(A.version)
local state = call('HGET', k_states(policy), version)
if state == 'refused' then return 0 end
if state ~= 'candidate' then return conflict(policy .. '@' .. version .. ' is ' .. (state or 'unknown') .. ', not a candidate') end
local key = k_lease(policy)
if call('HGET', key, 'version') == version then
  for _, id in ipairs(leased(policy)) do
    each_reward(id, function(_, _, fb) call('HSET', k_fb(fb), 'gate', A.gate) end)
    dismiss(id, 'gate')
  end
  call('DEL', key)
end
call('HSET', k_states(policy), version, 'refused')
call('HSET', k_verdicts(policy), version, A.verdict)
announce(policy, 'refused')
return 1
