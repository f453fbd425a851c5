#!lua
-- Does nothing, but counts as a write: the server refuses it whenever it refuses writes (memory full, disk full, a replica).
return 1
