#!lua flags=allow-oom
-- Up to `k` ids to resample: prompts of lone scored answers first, then recent ones; none twice until all were offered.
--include _1_keys
local LOOKED_AT = 1000
local all, listed = {}, {}
local function add(id)
  if not listed[id] and call('EXISTS', k_meta(id)) == 1 then
    listed[id] = true
    all[#all + 1] = id
  end
end
for _, id in ipairs(call('ZREVRANGE', k_lone(A.policy), 0, LOOKED_AT - 1)) do
  if call('EXISTS', k_meta(id)) == 0 then call('ZREM', k_lone(A.policy), id) else add(id) end
end
for _, entry in ipairs(call('XREVRANGE', k_recent(A.policy), '+', '-', 'COUNT', LOOKED_AT)) do
  add(entry[2][2])
end
local offered, taken = k_offered(A.policy), {}
local function take()
  for _, id in ipairs(all) do
    if #taken >= A.k then return end
    if call('SADD', offered, id) == 1 then taken[#taken + 1] = id end
  end
end
take()
if #taken < A.k and #all > #taken then
  call('DEL', offered)
  for _, id in ipairs(taken) do call('SADD', offered, id) end
  take()
end
call('PEXPIRE', offered, whole(A.retention))
return taken
