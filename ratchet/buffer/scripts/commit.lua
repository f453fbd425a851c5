#!lua flags=allow-oom
-- The commit of a step: counter, candidate and the examples that it consumed, or nothing. The same commit twice is one.
--include _1_keys _2_feedback _3_examples _4_lease
local refusal = fenced()
if refusal then return refusal end
local policy, version = A.policy, whole(A.version)
local p = call('HMGET', k_policy(policy), 'step', 'next_version')
if not p[1] then return conflict('no policy ' .. policy) end
if tonumber(p[1]) == A.step and call('HGET', k_versions(policy), version) == ARGV[2] then return 0 end
if A.step ~= p[1] + 1 then return conflict('step ' .. whole(A.step) .. ' does not follow step ' .. p[1]) end
if version ~= p[2] then return conflict('version ' .. version .. ' is not the next, ' .. p[2]) end
local key, consumed, kept, rest, rejected = k_lease(policy), {}, {}, {}, 0
local step = call('HGET', key, 'step')
if step and tonumber(step) ~= A.step then return conflict('the lease is of step ' .. step) end
for _, id in ipairs(A.consumed) do consumed[id] = true end
for _, id in ipairs(leased(policy)) do
  table.insert(consumed[id] and kept or rest, id)
  if A.rejected[id] and not consumed[id] then rejected = rejected + 1 end
end
if #kept ~= #A.consumed then return conflict('a consumed example is not in the lease of step ' .. whole(A.step)) end
for _ in pairs(A.rejected) do rejected = rejected - 1 end
if rejected ~= 0 then return conflict('a rejected example is consumed, or not in the lease of step ' .. whole(A.step)) end

for _, id in ipairs(rest) do dismiss(id, A.rejected[id] or 'dropped') end
if step then
  call('HSET', key, 'version', version, 'examples', #kept > 0 and cjson.encode(kept) or '[]')
end
call('HSET', k_policy(policy), 'step', whole(A.step), 'next_version', whole(A.version + 1))
call('HSET', k_versions(policy), version, ARGV[2])
call('HSET', k_states(policy), version, 'candidate')
return 1
