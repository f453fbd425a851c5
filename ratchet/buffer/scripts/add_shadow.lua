#!lua
-- A scored shadow group goes straight to ready; its rewards are no client's and stay out of the ledger. Idempotent by id.
--include _1_keys _2_feedback _3_examples
local id = A.id
if call('EXISTS', k_meta(id)) == 1 then return id end
local expires = whole(now_ms() + A.retention)
call('SET', k_blob(id), ARGV[2], 'PXAT', expires)
call('HSET', k_meta(id), 'tenant', A.tenant, 'policy', A.policy, 'version', A.version, 'n', A.n, 'expires', expires)
call('PEXPIREAT', k_meta(id), expires)
make_ready(id, 'group', A.policy, 'shadow', A.rewards)
return id
