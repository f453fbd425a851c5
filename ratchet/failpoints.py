"""Named places where a test can kill the process, as a power cut would: no cleanup, no flush.

`RATCHET_FAILPOINT=learner.after_commit` kills at the first hit, `learner.after_commit:3` at the third. Unset: a hit costs a
look at the environment, so a hit belongs where there is I/O, never in an inner loop.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

VARIABLE = "RATCHET_FAILPOINT"
_hits: Counter[str] = Counter()


def hit(name: str) -> None:
    """Kills this process (SIGKILL) if the environment armed `name` and it was hit often enough."""
    armed, _, count = os.environ.get(VARIABLE, "").partition(":")
    if name != armed:
        return
    _hits[name] += 1
    if _hits[name] >= int(count or 1):
        os.kill(os.getpid(), signal.SIGKILL)
