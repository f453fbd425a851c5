#!lua flags=allow-oom
-- Examples leave the lease of a step before its commit, each for a reason. With none left the lease ends, and the request for a
-- step waits again.
--include _1_keys _2_feedback _3_examples _4_lease
local refusal = fenced()
if refusal then return refusal end
local key, kept = k_lease(A.policy), {}
local held = call('HMGET', key, 'step', 'version', 'job')
if not held[1] then return 0 end
if tonumber(held[1]) ~= A.step then return conflict('step ' .. held[1] .. ' of ' .. A.policy .. ' holds the lease') end
if held[2] then return conflict('step ' .. held[1] .. ' of ' .. A.policy .. ' is committed') end
for _, id in ipairs(leased(A.policy)) do
  if A.reasons[id] then dismiss(id, A.reasons[id]) else table.insert(kept, id) end
end
if #kept > 0 then return call('HSET', key, 'examples', cjson.encode(kept)) end
if held[3] then call('SET', k_job(A.policy), held[3], 'NX') end
return call('DEL', key)
