"""Keep a child process running: start it again when it ends, after a pause, unless that is of no use."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ratchet.backoff import Backoff
from ratchet.clock import monotonic

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 5.0
"""Seconds between a child's end and its next start, doubling from the first to the longest."""
STEADY_SECONDS = 10.0
"""A child that lived this long starts again after the first pause."""
EARLY_DEATHS = 3
"""Ends in a row after which a child that was never ready is given up."""
CANNOT_START = 126
"""Stands for the exit status of a child that could not even be started; a shell's number for it."""
WRONG_CONFIGURATION = 2
"""Exit status of our programs when the configuration is wrong."""


async def keep_running(
    life: Callable[[], Awaitable[int]],
    *,
    was_ready: Callable[[], bool],
    is_final: Callable[[int], bool],
    ended: Callable[[int], Awaitable[None]],
) -> int:
    """Run a child again each time it ends; return the exit status with which it was given up.

    `life` starts the child and returns its exit status. It is given up after a status that `is_final`, or after EARLY_DEATHS
    ends while it was never ready. `ended` is called after every end that a restart follows.
    """
    backoff, deaths = Backoff(FIRST_PAUSE, LONGEST_PAUSE), 0
    while True:
        started = monotonic()
        status = await life()
        deaths += 1
        if is_final(status) or (not was_ready() and deaths >= EARLY_DEATHS):
            return status
        if monotonic() - started > STEADY_SECONDS:
            backoff.reset()
        await ended(status)
        await asyncio.sleep(backoff.pause())
