#!lua flags=allow-oom
-- Readers get the event that a candidate begins to load.
if call('EXISTS', k_policy(A.policy)) == 0 then return conflict('no policy ' .. A.policy) end
announce(A.policy, 'loading')
return 1
