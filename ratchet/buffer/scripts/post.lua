#!lua
-- Feedback is accepted: counted once, placed in its slot, parked while an answer that it names is unknown. Returns its id.
--include _1_keys _2_feedback _3_examples
local fb, field = A.fb, A.choice .. ':' .. A.metric
if A.idem then
  local earlier = call('GET', k_idem(A.tenant, A.idem))
  if earlier then return earlier end
end
if call('EXISTS', k_fb(fb)) == 1 then return fb end
if call('EXISTS', k_tombstone(A.target)) == 1 then return redis.error_reply('NOTYOURS the target was deleted') end
local owner = call('HGET', k_meta(A.target), 'tenant')
if owner and owner ~= A.tenant then return redis.error_reply('NOTYOURS the target belongs to another tenant') end

local f = {
  fb = fb, tenant = A.tenant, target = A.target, choice = A.choice, metric = A.metric, type = A.type, value = A.value, score = A.score,
}
local about, wrong = subject(f)
local slots = k_slots(A.tenant, A.target)
local current = call('HGET', slots, field)
local old = current and current ~= 'used' and call('HMGET', k_fb(current), 'state', 'parked', 'example')
if not about and not wrong and not (old and old[2] == '1') and tonumber(call('HGET', PARKED, A.tenant) or '0') >= A.max_parked then
  return redis.error_reply('PARKED ' .. whole(A.max_parked) .. ' rewards wait for unknown targets')
end

local now = now_ms()
call('HSET', k_fb(fb), 'tenant', A.tenant, 'target', A.target, 'choice', A.choice, 'metric', A.metric, 'type', A.type, 'value', A.value,
  'score', A.score, 'metadata', A.metadata, 'key_id', A.key_id, 'created', whole(now), 'due', whole(now + A.ttl),
  'parked', '0', 'state', 'pending', 'reason', '')
call('ZADD', DUE, whole(now + A.ttl), fb)
tally('received', 1)
tally('pending', 1)
if A.idem then call('SET', k_idem(A.tenant, A.idem), fb, 'PX', whole(A.ttl)) end

if wrong or current == 'used' then
  settle(fb, 'rejected', wrong or 'too_late')
  return fb
end
if old and old[1] == 'leased' then
  local waiting = call('HGET', slots, 'w:' .. field)
  if waiting then settle(waiting, 'rejected', 'superseded') end
  call('HSET', slots, 'w:' .. field, fb)
  call('HSET', k_fb(fb), 'state', 'waiting')
  return fb
end
if old then
  settle(current, 'rejected', 'superseded')
  if old[3] then withdraw(old[3]) end
end
call('HSET', slots, field, fb)
call('PERSIST', slots)
if about then make(f, about) else park(f) end
return fb
