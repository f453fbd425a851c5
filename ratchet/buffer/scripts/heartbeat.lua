#!lua flags=allow-oom
-- Records a gateway's heartbeat and forgets gateways without one. If the server's clock jumped, or this script did not run for as
-- long as a gateway may be silent, nobody's silence is known: it is counted from now on.
--include _1_keys
local CHECKED, AT = 'r:heartbeats:checked', 'r:heartbeats:at'
local now, checked = now_ms(), call('GET', CHECKED)
if checked and (now < tonumber(checked) or now > checked + A.silent) then
  for _, gateway in ipairs(call('ZRANGE', AT, 0, -1)) do call('ZADD', AT, whole(now), gateway) end
end
call('SET', CHECKED, whole(now))
if A.gateway then
  call('HSET', 'r:heartbeats', A.gateway, ARGV[2])
  call('ZADD', AT, whole(now), A.gateway)
end
for _, silent in ipairs(call('ZRANGE', AT, '-inf', whole(now - A.silent), 'BYSCORE')) do
  call('HDEL', 'r:heartbeats', silent)
  call('ZREM', AT, silent)
end
return call('HVALS', 'r:heartbeats')
