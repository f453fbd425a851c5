-- Examples: feedback joined with the answers that it names; ready in a queue for each policy and kind, until a lease takes them.
local LONE_KEPT = 10000
local NUMERIC = {float = true, boolean = true}

local function answer(id)
  local m = call('HMGET', k_meta(id), 'tenant', 'policy', 'n', 'trainable', 'prompt', 'metric', 'seq', 'base')
  return m[1] and {
    id = id, tenant = m[1], policy = m[2], n = tonumber(m[3]), trainable = m[4], prompt = m[5], metric = m[6], seq = m[7],
    base = m[8],
  }
end

-- Whether `tenant` may rate this choice of an answer: the answer, if so. Else why never, or nil where the answer is unknown yet.
local function named(id, choice, tenant)
  local found = answer(id)
  if not found then return nil, call('EXISTS', k_tombstone(id)) == 1 and 'deleted' or nil end
  if found.tenant ~= tenant then return nil, 'not_yours' end
  if tonumber(choice) >= found.n then return nil, 'no_such_choice' end
  return found
end

-- What feedback is about: {answer =, episode =, pair =}, or nil, with the reason if that is for good.
local function subject(f)
  local target, wrong = named(f.target, f.choice, f.tenant)
  if wrong then return nil, wrong end
  local about = {answer = target, policy = target and not target.base and target.policy}
  if not target then
    local episode = call('HMGET', k_episode(f.tenant, f.target), 'policy', 'base')
    if not episode[1] then return nil end
    about.policy = not episode[2] and episode[1]
  end
  if f.type ~= 'preference' then return about end
  about.pair = {}
  for i, one in ipairs(preferred(f.value)) do
    local found, why = named(one[1], one[2], f.tenant)
    if not found then return nil, why end
    about.pair[i] = found
  end
  return about
end

local function make_ready(id, kind, policy, ...)
  local seq = call('INCR', 'r:seq')
  call('ZADD', k_ready(policy, kind), seq, id)
  call('HSET', k_example(id), 'state', 'ready', 'kind', kind, 'policy', policy, 'seq', seq, ...)
end

-- The pending rewards [n] of a group, or nil while one is missing or no number.
local function rewards_of(id, tenant, metric, n)
  local fields = {}
  for choice = 0, n - 1 do fields[choice + 1] = choice .. ':' .. metric end
  local held = call('HMGET', k_slots(tenant, id), unpack(fields))
  for i = 1, n do
    if not held[i] or held[i] == 'used' then return nil end
  end
  for i = 1, n do
    local f = call('HMGET', k_fb(held[i]), 'state', 'score')
    if f[1] ~= 'pending' or not f[2] or f[2] == '' then return nil end
  end
  return held
end

local function make_group(m)
  if m.trainable ~= 'exact' or call('EXISTS', k_example(m.id)) == 1 then return end
  if not rewards_of(m.id, m.tenant, m.metric, m.n) then return end
  make_ready(m.id, 'group', m.policy, 'tenant', m.tenant, 'target', m.id, 'metric', m.metric, 'n', m.n)
end

-- An example of one feedback. Its id is the slot; an episode's has the tenant in front, since two tenants may use one name.
local function make_single(f, about, kind)
  local id = (about.answer and f.target or owned(f.tenant, f.target)) .. ':' .. field_of(f)
  make_ready(id, kind, about.policy, 'tenant', f.tenant, 'target', f.target, 'field', field_of(f))
  call('HSET', k_fb(f.fb), 'example', id)
end

local function make_lone(f, about)
  local m = about.answer
  if m.n == 1 and m.metric == f.metric and m.prompt == '1' then
    call('ZADD', k_lone(m.policy), m.seq, m.id)
    call('ZREMRANGEBYRANK', k_lone(m.policy), 0, -LONE_KEPT - 1)
  end
  if m.trainable ~= 'no' then make_single(f, about, 'lone') end
end

-- Makes the example that pending feedback is, or completes.
local function make(f, about)
  if not about.policy or (NUMERIC[f.type] and f.score == '') then return end
  local m = about.answer
  if about.pair then
    if about.pair[1].trainable ~= 'no' and about.pair[2].trainable ~= 'no' then make_single(f, about, 'pair') end
  elseif not m then
    make_single(f, about, 'episode')
  elseif not NUMERIC[f.type] then
    if m.trainable ~= 'no' then make_single(f, about, f.type) end
  elseif m.n > 1 and f.metric == m.metric then
    make_group(m)
  else
    make_lone(f, about)
  end
end

-- Parked feedback again, since an answer that it named has come.
local function join(f)
  local about, wrong = subject(f)
  if wrong then return reject(f, wrong) end
  if not about then return end
  unpark(f.fb)
  make(f, about)
end

-- A revision that waited takes its turn.
local function join_promoted(fbs)
  for _, fb in ipairs(fbs) do
    local f = feedback(fb)
    local about, wrong = subject(f)
    if wrong then
      reject(f, wrong)
    elseif about then
      make(f, about)
    else
      park(f)
    end
  end
end

-- While leased, an interaction outlives its retention, and its deletion; afterwards it does not.
local function hold(id)
  call('INCR', k_held(id))
  call('PERSIST', k_blob(id))
  call('PERSIST', k_meta(id))
end

local function let_go(id)
  if call('DECR', k_held(id)) > 0 then return end
  call('DEL', k_held(id))
  local expires = call('HGET', k_meta(id), 'expires')
  if not expires then
    call('DEL', k_blob(id))
    return
  end
  call('PEXPIREAT', k_blob(id), expires)
  call('PEXPIREAT', k_meta(id), expires)
end

-- The interactions of a leased example: {id, turn} each.
local function names_of(id)
  local names = call('HGET', k_example(id), 'names')
  return names and cjson.decode(names) or {}
end

-- Ends an example, ready or leased.
local function withdraw(id)
  local e = call('HMGET', k_example(id), 'policy', 'kind')
  if not e[1] then return end
  for _, name in ipairs(names_of(id)) do let_go(name[1]) end
  call('ZREM', k_ready(e[1], e[2]), id)
  call('DEL', k_example(id))
end

local function each_reward(id, act)
  local e = call('HMGET', k_example(id), 'tenant', 'target', 'field', 'metric', 'n')
  if not e[1] then return end
  local slots = k_slots(e[1], e[2])
  for choice = 0, (tonumber(e[5]) or 1) - 1 do
    local field = e[3] or choice .. ':' .. e[4]
    local fb = call('HGET', slots, field)
    if fb and fb ~= 'used' then act(slots, field, fb) end
  end
  retire(slots)
end

-- The example will not be learned from: its rewards are rejected, revisions that waited take their slots.
local function dismiss(id, reason)
  local revised = {}
  each_reward(id, function(slots, field, fb)
    settle(fb, 'rejected', reason)
    revised[#revised + 1] = promote(slots, field)
  end)
  local shadow = call('HGET', k_example(id), 'shadow')
  withdraw(id)
  if shadow then call('DEL', k_blob(id), k_meta(id)) end
  join_promoted(revised)
end
