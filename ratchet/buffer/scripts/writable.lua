#!lua
-- Does nothing, but as a write: the server refuses it whenever it would refuse one (memory full, disk full, a replica).
return 1
