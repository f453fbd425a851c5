"""Orphans: grandchildren whose own parent was killed. `ratchet up` adopts and ends them, so that none stays on the machine."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import sys
from collections.abc import Collection

import psutil

from ratchet.process import kill_tree

PR_SET_CHILD_SUBREAPER = 36
GRACE_SECONDS = 1.0


def adopt() -> None:
    """Make every later orphan below this process its child instead of init's. Linux only; elsewhere nothing happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


async def end(known: Collection[int]) -> None:
    """End and reap every child of this process whose pid is not in `known`. No child may be starting meanwhile."""
    found = [child.pid for child in psutil.Process().children() if child.pid not in known]
    await asyncio.gather(*(kill_tree(pid, GRACE_SECONDS) for pid in found))
    for pid in found:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 (it does not wait)
