"""Supervision of the engines that Ratchet launches: started, watched, restarted, ended."""
