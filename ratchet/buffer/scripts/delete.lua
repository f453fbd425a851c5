#!lua flags=allow-oom
-- A client deletes its answer: blob, meta, indexes, pending rewards and their examples. One that is being learned from leaves every
-- list at once; its blob and leased rewards stay until the lease ends.
--include _1_keys _2_feedback _3_examples
local id, tenant = A.id, A.tenant
local m = call('HMGET', k_meta(id), 'tenant', 'route', 'policy', 'seq', 'episode', 'turn')
if m[1] ~= tenant or m[2] ~= A.route then return 0 end

local slots = k_slots(tenant, id)
local slot = call('HGETALL', slots)
for i = 1, #slot, 2 do
  local field, fb = slot[i], slot[i + 1]
  local r = fb ~= 'used' and call('HMGET', k_fb(fb), 'state', 'example')
  if r and r[1] ~= 'leased' then
    settle(fb, 'rejected', 'deleted')
    call('HDEL', slots, field)
    if r[2] then withdraw(r[2]) end
  end
end
retire(slots)
if call('HGET', k_example(id), 'state') ~= 'leased' then withdraw(id) end

if call('EXISTS', k_held(id)) == 0 then call('DEL', k_blob(id)) end
call('DEL', k_meta(id))
call('ZREM', k_index(tenant), id)
call('ZREM', k_lone(m[3]), id)
call('XDEL', k_recent(m[3]), m[4] .. '-0')
call('SREM', k_offered(m[3]), id)
if m[5] then call('HDEL', k_episode(tenant, m[5]), m[6]) end
-- Feedback for it, and a second put of it, are refused; a list may go on after it.
call('SET', k_tombstone(id), m[4] .. ':' .. tenant, 'PX', whole(A.ttl))
return 1
