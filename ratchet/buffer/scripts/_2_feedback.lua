-- One reward's life: pending | waiting | leased -> used | rejected | expired. Each step moves the ledger too.
local HOUR = 3600000
local BRIEF = {superseded = true, too_late = true, no_such_choice = true, not_yours = true, deleted = true}

local function tally(field, by) call('HINCRBY', LEDGER, field, by) end

-- The fields of a feedback that decide which example it belongs to.
local function feedback(fb)
  local r = call('HMGET', k_fb(fb), 'tenant', 'target', 'choice', 'metric', 'type', 'value', 'score')
  return {fb = fb, tenant = r[1], target = r[2], choice = r[3], metric = r[4], type = r[5], value = r[6], score = r[7]}
end

local function field_of(f) return f.choice .. ':' .. f.metric end

-- The two answers that a preference names, the chosen one first: {id, choice} each.
local function preferred(value)
  local v = cjson.decode(value)
  return {{v.target, v.choice or 0}, {v.over, v.over_choice or 0}}
end

-- Parked feedback waits for its target by tenant, and for the other answers that a preference names by its own id.
local function park(f)
  call('HSET', k_fb(f.fb), 'parked', '1')
  call('HINCRBY', PARKED, f.tenant, 1)
  local function await(id, member)
    call('SADD', k_waiters(id), member)
    call('PEXPIRE', k_waiters(id), whole(A.ttl + HOUR))
  end
  await(f.target, 't:' .. f.tenant)
  if f.type ~= 'preference' then return end
  for _, one in ipairs(preferred(f.value)) do await(one[1], 'f:' .. f.fb) end
end

local function unpark(fb)
  local f = call('HMGET', k_fb(fb), 'parked', 'tenant', 'type', 'value')
  if f[1] ~= '1' then return end
  call('HSET', k_fb(fb), 'parked', '0')
  if call('HINCRBY', PARKED, f[2], -1) <= 0 then call('HDEL', PARKED, f[2]) end
  if f[3] ~= 'preference' then return end
  for _, one in ipairs(preferred(f[4])) do call('SREM', k_waiters(one[1]), 'f:' .. fb) end
end

-- The end of a reward. A record that nobody needs any more is deleted soon, and its contents at once, where a client can make
-- many of them or wants them deleted.
local function settle(fb, state, reason)
  unpark(fb)
  call('HSET', k_fb(fb), 'state', state, 'reason', reason or '')
  call('ZREM', DUE, fb)
  tally('pending', -1)
  tally(state == 'rejected' and 'rejected:' .. reason or state, 1)
  local brief = BRIEF[reason or '']
  if brief then call('HSET', k_fb(fb), 'value', 'null', 'metadata', '{}') end
  call('PEXPIRE', k_fb(fb), whole(brief and HOUR or 24 * HOUR))
end

-- A target's slots stay while one of them holds a reward; afterwards as long as its interaction could.
local function retire(slots)
  for _, value in ipairs(call('HVALS', slots)) do
    if value ~= 'used' then
      call('PERSIST', slots)
      return
    end
  end
  call('PEXPIRE', slots, whole(A.retention + A.ttl))
end

local function reject(f, reason)
  local slots = k_slots(f.tenant, f.target)
  settle(f.fb, 'rejected', reason)
  call('HDEL', slots, field_of(f))
  retire(slots)
end

-- The revision that waited for `field` becomes its reward, pending. Returns it, or nil.
local function promote(slots, field)
  local waiting = call('HGET', slots, 'w:' .. field)
  if not waiting then
    call('HDEL', slots, field)
    return nil
  end
  call('HDEL', slots, 'w:' .. field)
  call('HSET', slots, field, waiting)
  call('HSET', k_fb(waiting), 'state', 'pending')
  return waiting
end
