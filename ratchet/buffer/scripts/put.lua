#!lua
-- An interaction arrives: blob, meta, indexes; feedback that was parked for it joins. Idempotent by id; a deleted one stays so.
local RECENT_KEPT = 10000
local id, tenant = A.id, A.tenant
if call('EXISTS', k_meta(id), k_gone(id)) > 0 then return 0 end
local seq, expires = call('INCR', 'r:seq'), whole(now_ms() + A.retention)
call('SET', k_blob(id), ARGV[2], 'PXAT', expires)
call('HSET', k_meta(id), 'tenant', tenant, 'route', A.route, 'policy', A.policy, 'version', A.version, 'n', A.n, 'trainable', A.trainable,
  'prompt', A.prompt, 'status', A.status, 'metric', A.metric, 'seq', seq, 'expires', expires)
if A.model ~= '' then call('HSET', k_meta(id), 'model', A.model) end
if A.episode ~= '' then call('HSET', k_meta(id), 'episode', A.episode) end
if A.metadata ~= '' then call('HSET', k_meta(id), 'metadata', A.metadata) end
call('PEXPIREAT', k_meta(id), expires)
call('SADD', 'r:tenants', tenant)
call('ZADD', k_index(tenant), seq, id)
-- The oldest expire first: dropping up to two a write keeps the index as short as the store.
for _, old in ipairs(call('ZRANGE', k_index(tenant), 0, 1)) do
  if call('EXISTS', k_meta(old)) == 0 then call('ZREM', k_index(tenant), old) end
end
if A.prompt == '1' then call('XADD', k_recent(A.policy), 'MAXLEN', '~', RECENT_KEPT, seq .. '-0', 'i', id) end
if A.untrainable ~= '' then call('HINCRBY', 'r:untrainable', A.untrainable, 1) end

local function join(target, whose, n)
  local slots = k_slots(whose, target)
  local held = call('HGETALL', slots)
  for i = 1, #held, 2 do
    local field, fb = held[i], held[i + 1]
    if fb ~= 'used' and call('HGET', k_fb(fb), 'parked') == '1' then
      local wrong = whose ~= tenant and 'not_yours' or tonumber(string.match(field, '^(%d+):')) >= n and 'no_such_choice'
      if wrong then
        settle(fb, 'rejected', wrong)
        call('HDEL', slots, field)
      else
        unpark(fb)
      end
    end
  end
  retire(slots)
end

for _, whose in ipairs(call('SMEMBERS', k_waiters(id))) do join(id, whose, tonumber(A.n)) end
call('DEL', k_waiters(id))
if A.episode ~= '' then
  call('SET', k_episode(tenant, A.episode), A.policy, 'PXAT', expires)
  -- An episode has no choices of its own: any number is taken.
  if call('SREM', k_waiters(A.episode), tenant) == 1 then join(A.episode, tenant, math.huge) end
end
rated(id)
return 1
