"""Failpoints: named places in the code where a test can kill the process with SIGKILL, so that nothing is cleaned up or flushed.

`RATCHET_FAILPOINT=learner.after_commit` kills the process at the first hit, `learner.after_commit:3` at the third. Each hit reads
an environment variable, so put a failpoint only where the code does I/O anyway, never in an inner loop.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

VARIABLE = "RATCHET_FAILPOINT"
_hits: Counter[str] = Counter()


def hit(name: str) -> None:
    """Kill this process with SIGKILL if the failpoint `name` is set and has been hit as often as requested."""
    armed, _, count = os.environ.get(VARIABLE, "").partition(":")
    if name != armed:
        return
    _hits[name] += 1
    if _hits[name] >= int(count or 1):
        os.kill(os.getpid(), signal.SIGKILL)
