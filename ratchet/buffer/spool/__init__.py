"""The spool: answers that wait on disk for a store that is away."""

from ratchet.buffer.spool.spool import FOLDER, REFUSED, Spool, Survey, set_aside, survey

__all__ = ["FOLDER", "REFUSED", "Spool", "Survey", "set_aside", "survey"]
