-- One reward's life: pending | waiting | leased -> used | rejected | expired. Each step moves the ledger too.
local HOUR = 3600000
local BRIEF = {superseded = true, too_late = true, no_such_choice = true, not_yours = true, deleted = true}

local function tally(field, by) call('HINCRBY', LEDGER, field, by) end

local function unpark(fb)
  local f = call('HMGET', k_fb(fb), 'parked', 'tenant')
  if f[1] ~= '1' then return end
  call('HSET', k_fb(fb), 'parked', '0')
  if call('HINCRBY', PARKED, f[2], -1) <= 0 then call('HDEL', PARKED, f[2]) end
end

-- The end of a reward. A record nobody needs any more goes soon, and its contents at once, where a client can make many of them
-- or wants them gone.
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

-- The revision that waited behind `field` becomes its reward, pending.
local function promote(slots, field)
  local waiting = call('HGET', slots, 'w:' .. field)
  if not waiting then
    call('HDEL', slots, field)
    return
  end
  call('HDEL', slots, 'w:' .. field)
  call('HSET', slots, field, waiting)
  call('HSET', k_fb(waiting), 'state', 'pending')
end
