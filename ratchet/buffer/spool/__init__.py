"""The spool: answers kept on disk while the store is unavailable."""

from ratchet.buffer.spool.spool import FOLDER, REFUSED, Spool, Survey, set_aside, survey

__all__ = ["FOLDER", "REFUSED", "Spool", "Survey", "set_aside", "survey"]
