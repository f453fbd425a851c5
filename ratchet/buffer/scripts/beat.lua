#!lua flags=allow-oom
-- A gateway's heartbeat, and the end of those that fell silent.
local now = now_ms()
if A.gateway then
  call('HSET', 'r:beats', A.gateway, ARGV[2])
  call('ZADD', 'r:beats:at', whole(now), A.gateway)
end
for _, silent in ipairs(call('ZRANGE', 'r:beats:at', '-inf', whole(now - A.silent), 'BYSCORE')) do
  call('HDEL', 'r:beats', silent)
  call('ZREM', 'r:beats:at', silent)
end
return call('HVALS', 'r:beats')
