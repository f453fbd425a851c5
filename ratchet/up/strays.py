"""Grandchildren whose own parent was killed: adopted by `ratchet up` and ended, so that none is left on the machine."""

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
GRACE = 1.0


def adopt() -> None:
    """From now on an orphan below this process becomes its child instead of init's. Linux only, else nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


async def end(known: Collection[int]) -> None:
    """Ends and reaps every child of this process whose pid is not `known`. No child may be being started meanwhile."""
    found = [child.pid for child in psutil.Process().children() if child.pid not in known]
    await asyncio.gather(*(kill_tree(pid, GRACE) for pid in found))
    for pid in found:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 (it does not wait)
