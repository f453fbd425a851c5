#!lua flags=allow-oom
-- Stores a gateway's heartbeat and removes the gateways that fell silent. If the server's clock jumped, or this script did not run
-- for as long as a gateway may be silent, silence cannot be measured: it is counted anew from now.
--include _1_keys
local LAST_RUN, AT = 'r:beats:seen', 'r:beats:at'
local now, last_run = now_ms(), call('GET', LAST_RUN)
if last_run and (now < tonumber(last_run) or now > last_run + A.silent) then
  for _, gateway in ipairs(call('ZRANGE', AT, 0, -1)) do call('ZADD', AT, whole(now), gateway) end
end
call('SET', LAST_RUN, whole(now))
if A.gateway then
  call('HSET', 'r:beats', A.gateway, ARGV[2])
  call('ZADD', AT, whole(now), A.gateway)
end
for _, silent in ipairs(call('ZRANGE', AT, '-inf', whole(now - A.silent), 'BYSCORE')) do
  call('HDEL', 'r:beats', silent)
  call('ZREM', AT, silent)
end
return call('HVALS', 'r:beats')
