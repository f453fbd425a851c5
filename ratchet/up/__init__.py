"""`ratchet up`: everything on one machine, as child processes of one parent."""

from ratchet.up.run import up

__all__ = ["up"]
