#!lua flags=allow-oom
-- Readers get the event that a candidate begins to load.
--include _1_keys _4_lease
if call('EXISTS', k_policy(A.policy)) == 0 then return conflict('no policy ' .. A.policy) end
announce(A.policy, 'loading')
return 1
