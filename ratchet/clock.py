"""The clocks: wall time for timestamps, monotonic time for durations.

Records are never ordered by time: the store's counter gives their order (see docs/store.md).
"""

from __future__ import annotations

import time


def wall() -> float:
    """Return seconds since the Unix epoch. For timestamps that people read; the clock may jump."""
    return time.time()


monotonic = time.monotonic
"""Return seconds on a clock that never goes backwards. For durations and deadlines."""
