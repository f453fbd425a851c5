"""Seeds and ids that depend on their arguments and nothing else, so that a replay draws the same answers under the same ids."""

from __future__ import annotations

import hashlib

from ratchet import names

_SEEDS = 2**31


def seed_of(*parts: str | int) -> int:
    """A seed in [0, 2**31) for `parts`."""
    return int.from_bytes(_hash(parts)[:8], "big") % _SEEDS


def shadow_id(*parts: str | int) -> str:
    """The id of the shadow group for `parts`. A group sampled again after a crash gets the same id and is stored once."""
    return names.CHAT_PREFIX + _hash(("shadow", *parts)).hex()[:32]


def _hash(parts: tuple[str | int, ...]) -> bytes:
    # Each part is preceded by its length, so that no two lists of parts make the same text.
    return hashlib.sha256("".join(f"{len(str(part))}:{part}" for part in parts).encode()).digest()
