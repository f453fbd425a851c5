#!lua
-- An interaction arrives: blob, meta, indexes; feedback that was parked for it joins. Idempotent by id; a deleted one stays so.
--include _1_keys
local RECENT_KEPT, TURNS_KEPT = 10000, 1000
local id, tenant = A.id, A.tenant
if call('EXISTS', k_meta(id), k_tombstone(id)) > 0 then return 0 end
local seq, expires = call('INCR', 'r:seq'), whole(now_ms() + A.retention)
call('SET', k_blob(id), ARGV[2], 'PXAT', expires)

local fields = {'tenant', tenant, 'route', A.route, 'policy', A.policy, 'version', A.version, 'n', A.n, 'trainable', A.trainable,
  'prompt', A.prompt, 'status', A.status, 'metric', A.metric, 'seq', seq, 'expires', expires}
local function note(name, value)
  if not value then return end
  fields[#fields + 1] = name
  fields[#fields + 1] = value
end
-- An episode: the policy of its last turn, how many turns it had, and the ids of the last of them by their index.
local episode = A.episode and k_episode(tenant, A.episode)
if episode then
  local turn = call('HINCRBY', episode, 'turns', 1) - 1
  call('HSET', episode, 'policy', A.policy, turn, id)
  call('HDEL', episode, turn - TURNS_KEPT)
  if A.base then call('HSET', episode, 'base', A.base) else call('HDEL', episode, 'base') end
  call('PEXPIREAT', episode, expires)
  note('turn', turn)
end
for _, name in ipairs({'model', 'episode', 'metadata', 'base'}) do note(name, A[name]) end
call('HSET', k_meta(id), unpack(fields))
call('PEXPIREAT', k_meta(id), expires)
call('SADD', 'r:tenants', tenant)
call('ZADD', k_index(tenant), seq, id)
-- The oldest expire first: dropping up to two a write keeps the index as short as the store.
for _, old in ipairs(call('ZRANGE', k_index(tenant), 0, 1)) do
  if call('EXISTS', k_meta(old)) == 0 then call('ZREM', k_index(tenant), old) end
end
if A.prompt == '1' then call('XADD', k_recent(A.policy), 'MAXLEN', '~', RECENT_KEPT, seq .. '-0', 'i', id) end
if A.untrainable then call('HINCRBY', 'r:untrainable', A.untrainable, 1) end

local waiting = call('SMEMBERS', k_waiters(id))
local early = episode and call('SREM', k_waiters(A.episode), 't:' .. tenant) == 1
if #waiting == 0 and not early then return 1 end

-- Only here, since most answers come before their feedback and need none of it.
--include _2_feedback _3_examples
local function join_parked(fb)
  if call('HGET', k_fb(fb), 'parked') == '1' then join(feedback(fb)) end
end
local function join_target(target, whose)
  local slots = k_slots(whose, target)
  for _, fb in ipairs(call('HVALS', slots)) do
    if fb ~= 'used' then join_parked(fb) end
  end
  retire(slots)
end

call('DEL', k_waiters(id))
for _, member in ipairs(waiting) do
  local rest = string.sub(member, 3)
  if string.sub(member, 1, 2) == 't:' then join_target(id, rest) else join_parked(rest) end
end
if early then join_target(A.episode, tenant) end
return 1
