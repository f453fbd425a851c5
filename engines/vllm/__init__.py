"""vLLM: all that Ratchet knows of that server."""
