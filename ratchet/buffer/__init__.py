"""The store: interactions, feedback, experience, registry, keys, fleet. See docs/store.md."""

from ratchet.buffer.embedded import EmbeddedServer
from ratchet.buffer.store import Store, open_store

__all__ = ["EmbeddedServer", "Store", "open_store"]
