#!lua flags=allow-oom
-- Rewards whose time has come, at most `limit`: pending or waiting -> expired. A ready group that loses one is withdrawn.
local due = call('ZRANGE', DUE, '-inf', whole(now_ms()), 'BYSCORE', 'LIMIT', 0, A.limit)
for _, fb in ipairs(due) do
  local f = call('HMGET', k_fb(fb), 'tenant', 'target', 'choice', 'metric', 'state')
  local slots, field = k_slots(f[1], f[2]), f[3] .. ':' .. f[4]
  if f[5] == 'waiting' then
    call('HDEL', slots, 'w:' .. field)
  else
    call('HDEL', slots, field)
    local g = call('HMGET', k_group(f[2]), 'tenant', 'metric')
    if g[1] == f[1] and g[2] == f[4] then withdraw(f[2]) end
  end
  settle(fb, 'expired')
  retire(slots)
end
return #due
