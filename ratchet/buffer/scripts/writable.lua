#!lua
-- Does nothing. The server refuses it whenever it refuses writes: memory full, disk full, a replica.
return 1
