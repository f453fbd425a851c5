#!lua flags=allow-oom
-- A client deletes its answer: blob, meta, indexes, group and pending rewards. One that is being learned from leaves every list at
-- once; its blob, group and leased rewards stay until the lease ends.
local id, tenant = A.id, A.tenant
local m = call('HMGET', k_meta(id), 'tenant', 'route', 'policy', 'seq')
if m[1] ~= tenant or m[2] ~= A.route then return 0 end

local slots = k_slots(tenant, id)
local held = call('HGETALL', slots)
for i = 1, #held, 2 do
  local field, fb = held[i], held[i + 1]
  if fb ~= 'used' and call('HGET', k_fb(fb), 'state') ~= 'leased' then
    settle(fb, 'rejected', 'deleted')
    call('HDEL', slots, field)
  end
end
retire(slots)

if call('HGET', k_group(id), 'state') ~= 'leased' then
  withdraw(id)
  call('DEL', k_blob(id))
end
call('DEL', k_meta(id))
call('ZREM', k_index(tenant), id)
call('ZREM', k_lone(m[3]), id)
call('XDEL', k_recent(m[3]), m[4] .. '-0')
call('SREM', k_offered(m[3]), id)
-- Feedback for it, and a second put of it, are refused; a list may go on after it.
call('SET', k_gone(id), m[4] .. ':' .. tenant, 'PX', whole(A.ttl))
return 1
