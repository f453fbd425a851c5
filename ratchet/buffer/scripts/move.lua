#!lua flags=allow-oom
-- An operator moves the pointer to a version that was live before, unless it moved meanwhile.
--include _1_keys _4_lease
local policy, to = A.policy, whole(A.to)
local live, state = call('HGET', k_policy(policy), 'live'), call('HGET', k_states(policy), to)
if not live then return conflict('no policy ' .. policy) end
if live == to then return 0 end
if live ~= whole(A.expect_live) then return conflict('live is ' .. policy .. '@' .. live .. ', not @' .. whole(A.expect_live)) end
if not state or state == 'candidate' or state == 'refused' then
  return conflict(policy .. '@' .. to .. ' is ' .. (state or 'unknown') .. ' and may not serve')
end
point(policy, A.to, A.former)
return 1
