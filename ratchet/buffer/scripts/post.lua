#!lua
-- Feedback is accepted: counted once, placed in its slot, parked if its target is unknown. Returns its id.
local fb, field = A.fb, A.choice .. ':' .. A.metric
if A.idem then
  local seen = call('GET', k_idem(A.tenant, A.idem))
  if seen then return seen end
end
if call('EXISTS', k_fb(fb)) == 1 then return fb end
if call('EXISTS', k_gone(A.target)) == 1 then return redis.error_reply('NOTYOURS the target was deleted') end
local m = call('HMGET', k_meta(A.target), 'tenant', 'n')
if m[1] and m[1] ~= A.tenant then return redis.error_reply('NOTYOURS the target belongs to another tenant') end
local known = m[1] or call('EXISTS', k_episode(A.tenant, A.target)) == 1
local slots = k_slots(A.tenant, A.target)
local current = call('HGET', slots, field)
if not known and not current and tonumber(call('HGET', PARKED, A.tenant) or '0') >= A.max_parked then
  return redis.error_reply('PARKED ' .. whole(A.max_parked) .. ' rewards wait for targets nobody has seen')
end

local now = now_ms()
call('HSET', k_fb(fb), 'tenant', A.tenant, 'target', A.target, 'choice', A.choice, 'metric', A.metric, 'value', A.value,
  'score', A.score, 'metadata', A.metadata, 'key_id', A.key_id, 'created', whole(now), 'due', whole(now + A.ttl),
  'parked', '0', 'state', 'pending', 'reason', '')
call('ZADD', DUE, whole(now + A.ttl), fb)
tally('received', 1)
tally('pending', 1)
if A.idem then call('SET', k_idem(A.tenant, A.idem), fb, 'PX', whole(A.ttl)) end

if m[1] and tonumber(A.choice) >= tonumber(m[2]) then
  settle(fb, 'rejected', 'no_such_choice')
  return fb
end
if current == 'used' then
  settle(fb, 'rejected', 'too_late')
  return fb
end
if current and call('HGET', k_fb(current), 'state') == 'leased' then
  local waiting = call('HGET', slots, 'w:' .. field)
  if waiting then settle(waiting, 'rejected', 'superseded') end
  call('HSET', slots, 'w:' .. field, fb)
  call('HSET', k_fb(fb), 'state', 'waiting')
  return fb
end
if current then settle(current, 'rejected', 'superseded') end
call('HSET', slots, field, fb)
call('PERSIST', slots)
if known then
  rated(A.target)
else
  call('HSET', k_fb(fb), 'parked', '1')
  call('HINCRBY', PARKED, A.tenant, 1)
  call('SADD', k_waiters(A.target), A.tenant)
  call('PEXPIRE', k_waiters(A.target), whole(A.ttl + HOUR))
end
return fb
