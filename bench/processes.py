"""Find the processes of a running `ratchet up` by their command lines."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil

from ratchet.clock import monotonic

ROLES = ("gateway", "store", "learner")
POLL_SECONDS = 0.02


async def find(role: str, up: int, seconds: float) -> psutil.Process:
    """The role's process under `ratchet up`; wait while it is being restarted. TimeoutError: there is none within `seconds`."""
    deadline = monotonic() + seconds
    while monotonic() < deadline:
        for process in _children(up):
            if is_role(role, _words(process)):
                return process
        await asyncio.sleep(POLL_SECONDS)
    raise TimeoutError(f"no {role} process")


def is_role(role: str, words: list[str]) -> bool:
    """Whether a command line is that of the role: `python -m gateway ...`, the learner's, or a Valkey or Redis server's."""
    if not words:
        return False
    if role == "store":
        return any(name in words[0] for name in ("valkey-server", "redis-server"))
    # Not the shim that executes it, whose command line has the interpreter twice.
    python = "python" in Path(words[0]).name and "-I" not in words
    return python and any(word == role or f"'{role}'" in word for word in words)


def _children(up: int) -> Iterator[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        yield from psutil.Process(up).children(recursive=True)


def _words(process: psutil.Process) -> list[str]:
    try:
        return [] if process.status() == psutil.STATUS_ZOMBIE else process.cmdline()
    except psutil.Error:
        return []
