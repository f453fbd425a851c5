#!lua flags=allow-oom
-- Creates a policy with version 0, the base, live.
--include _1_keys
local policy = A.policy
local base = call('HGET', k_policy(policy), 'base')
if base then
  if base ~= A.base then return conflict(policy .. ' was trained on ' .. base .. ', not ' .. A.base .. '; give it another name') end
  return 0
end
call('SADD', 'r:policies', policy)
call('HSET', k_policy(policy), 'base', A.base, 'live', 0, 'epoch', 0, 'next_version', 1, 'step', 0)
call('HSET', k_versions(policy), 0, ARGV[2])
call('HSET', k_states(policy), 0, 'live')
call('ZADD', k_lived(policy), 0, 0)
return 1
