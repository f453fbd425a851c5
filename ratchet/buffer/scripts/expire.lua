#!lua flags=allow-oom
-- Rewards whose time has come, at most `limit`: pending or waiting -> expired. A ready example that loses one ends.
--include _1_keys _2_feedback _3_examples
local due = call('ZRANGE', DUE, '-inf', whole(now_ms()), 'BYSCORE', 'LIMIT', 0, A.limit)
for _, fb in ipairs(due) do
  local f = feedback(fb)
  local slots, r = k_slots(f.tenant, f.target), call('HMGET', k_fb(fb), 'state', 'example')
  if r[1] == 'waiting' then
    call('HDEL', slots, 'w:' .. field_of(f))
  else
    call('HDEL', slots, field_of(f))
    local group = call('HMGET', k_example(f.target), 'tenant', 'metric')
    if group[1] == f.tenant and group[2] == f.metric then withdraw(f.target) end
    if r[2] then withdraw(r[2]) end
  end
  settle(fb, 'expired')
  retire(slots)
end
return #due
