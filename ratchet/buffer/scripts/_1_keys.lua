-- Names of keys, the arguments, the clock. docs/store.md draws the same table.
local A = cmsgpack.unpack(ARGV[1])
local call = redis.call

local function whole(x) return string.format('%.0f', x) end

local function now_ms()
  local t = call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- The tenant's length comes first, so that no tenant and target can spell another pair's key.
local function owned(tenant, rest) return #tenant .. ':' .. tenant .. ':' .. rest end

local function k_blob(id) return 'r:i:' .. id end
local function k_meta(id) return 'r:m:' .. id end
-- A deleted answer leaves `seq:tenant` here.
local function k_tombstone(id) return 'r:tombstone:' .. id end
-- How many leased examples name the answer.
local function k_held(id) return 'r:held:' .. id end
local function k_index(tenant) return 'r:ti:' .. tenant end
local function k_recent(policy) return 'r:rp:' .. policy end
local function k_episode(tenant, episode) return 'r:ep:' .. owned(tenant, episode) end
local function k_fb(fb) return 'r:f:' .. fb end
local function k_slots(tenant, target) return 'r:t:' .. owned(tenant, target) end
local function k_idem(tenant, key) return 'r:id:' .. owned(tenant, key) end
local function k_waiters(target) return 'r:pk:' .. target end
local function k_example(id) return 'r:x:' .. id end
local function k_ready(policy, kind) return 'r:ready:' .. kind .. ':' .. policy end
local function k_lease(policy) return 'r:l:' .. policy end
local function k_learner(policy) return 'r:learner:' .. policy end
local function k_job(policy) return 'r:train:' .. policy end
local function k_lone(policy) return 'r:lone:' .. policy end
local function k_offered(policy) return 'r:off:' .. policy end
local function k_policy(policy) return 'r:p:' .. policy end
local function k_versions(policy) return 'r:v:' .. policy end
local function k_states(policy) return 'r:vs:' .. policy end
local function k_verdicts(policy) return 'r:vv:' .. policy end
local function k_lived(policy) return 'r:h:' .. policy end
local function k_quota(key) return 'r:q:' .. key end
local function k_leases(key) return 'r:ql:' .. key end

local DUE, LEDGER, PARKED = 'r:due', 'r:ledger', 'r:parked'

local function conflict(why) return redis.error_reply('CONFLICT ' .. why) end
