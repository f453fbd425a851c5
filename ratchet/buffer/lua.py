"""The store's transitions: one Lua script each, sent by its digest.

A script's file opens with its flags (`#!lua flags=...`: `allow-oom` lets what frees memory run when memory is full). A line
`--include _NAME ...` stands for the text of those helper files, whose names begin with `_`: each call of a script creates the
functions in it anew, so a script includes what it needs, where it needs it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import NamedTuple

INCLUDE = re.compile(r"^--include (.+)$", re.MULTILINE)


class Script(NamedTuple):
    """A script's text as the server gets it, and the digest it is then called by."""

    text: str
    sha: str


@cache
def scripts() -> dict[str, Script]:
    """All transitions by name."""
    folder = files("ratchet.buffer") / "scripts"
    found = {entry.name: entry.read_text(encoding="utf-8") for entry in folder.iterdir() if entry.name.endswith(".lua")}
    texts = {name.removesuffix(".lua"): text for name, text in found.items()}
    return {name: assemble(text, texts) for name, text in texts.items() if not name.startswith("_")}


def assemble(text: str, helpers: Mapping[str, str]) -> Script:
    """The script with the helpers that it includes. Raises KeyError for one that is not there."""
    whole = INCLUDE.sub(lambda line: "\n".join(helpers[name] for name in line[1].split()), text)
    return Script(whole, hashlib.sha1(whole.encode(), usedforsecurity=False).hexdigest())
