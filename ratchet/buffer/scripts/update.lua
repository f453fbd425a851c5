#!lua
-- Other metadata for an answer, in its blob and its meta. Nothing else of a blob ever changes, so the last of two writers wins.
--include _1_keys
local id = A.id
local m = call('HMGET', k_meta(id), 'tenant', 'route')
if m[1] ~= A.tenant or m[2] ~= A.route then return 0 end
if not call('SET', k_blob(id), ARGV[2], 'XX', 'KEEPTTL') then return 0 end
call('HDEL', k_meta(id), 'metadata')
if A.metadata ~= '' then call('HSET', k_meta(id), 'metadata', A.metadata) end
return 1
