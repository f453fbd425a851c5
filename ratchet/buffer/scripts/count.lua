#!lua flags=allow-oom
-- Counts the interactions of all tenants, and removes index entries whose interaction expired.
--include _1_keys
local DROPPED, n = 1000, 0
for _, tenant in ipairs(call('SMEMBERS', 'r:tenants')) do
  local index = k_index(tenant)
  for _, id in ipairs(call('ZRANGE', index, 0, DROPPED - 1)) do
    if call('EXISTS', k_meta(id)) == 1 then break end
    call('ZREM', index, id)
  end
  n = n + call('ZCARD', index)
end
return n
