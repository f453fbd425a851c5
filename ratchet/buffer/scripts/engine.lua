#!lua flags=allow-oom
-- What an operator does to one engine: `add`, `want`, `forget`; and `amend`, which must not bring back one that was removed meanwhile.
--include _1_keys
local engines, desired = 'r:engines', 'r:engines:desired'
local there, wanted = call('HEXISTS', engines, A.name) == 1, call('HGET', desired, A.name)
if A.how == 'add' then
  if there then return conflict('an engine ' .. A.name .. ' is there already') end
  call('HDEL', desired, A.name)
  call('HSET', engines, A.name, ARGV[2])
elseif A.how == 'amend' then
  if there then call('HSET', engines, A.name, ARGV[2]) end
elseif A.how == 'want' then
  if not there then return conflict('there is no engine ' .. A.name) end
  if wanted == 'remove' and A.desired ~= 'remove' then return conflict(A.name .. ' is being removed') end
  if A.desired == 'serve' then call('HDEL', desired, A.name) else call('HSET', desired, A.name, A.desired) end
elseif wanted == 'remove' then
  call('HDEL', engines, A.name)
  if A.again then call('HDEL', desired, A.name) end
end
return 1
