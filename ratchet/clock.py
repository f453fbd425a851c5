"""Time, from one place: wall time to stamp records, monotonic time to measure durations.

Order is never taken from either; the store's cursor orders records (see docs/store.md).
"""

from __future__ import annotations

import time


def wall() -> float:
    """Seconds since the epoch, UTC. For stamps people read; it may jump."""
    return time.time()


monotonic = time.monotonic
"""Seconds on a clock that never goes back. For durations and deadlines."""
