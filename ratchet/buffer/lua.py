"""The store's transitions: one Lua script each, sent by its digest.

A script's file opens with its flags (`#!lua flags=...`: `allow-oom` lets what frees memory run when memory is full); the
helpers of `_*.lua` go in between, so that each script stands alone.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import NamedTuple


class Script(NamedTuple):
    """A script's text as the server gets it, and the digest it is then called by."""

    text: str
    sha: str


@cache
def scripts() -> dict[str, Script]:
    """All transitions by name."""
    folder = files("ratchet.buffer") / "scripts"
    texts = {entry.name: entry.read_text(encoding="utf-8") for entry in folder.iterdir() if entry.name.endswith(".lua")}
    shared = "\n".join(texts[name] for name in sorted(texts) if name.startswith("_"))
    return {name.removesuffix(".lua"): _script(text, shared) for name, text in texts.items() if not name.startswith("_")}


def _script(text: str, shared: str) -> Script:
    flags, _, body = text.partition("\n")
    whole = f"{flags}\n{shared}\n{body}"
    return Script(whole, hashlib.sha1(whole.encode(), usedforsecurity=False).hexdigest())
