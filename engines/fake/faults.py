"""Faults that the fake engine injects, set by flags or by `POST /fake/faults`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import msgspec


class Faults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`die_after` and `hang_after` count the tokens of an answer: 0 is before the first byte, null is never."""

    token_ms: float = 0
    """Milliseconds a token takes."""
    die_after: int | None = None
    hang_after: int | None = None
    refuse: int | None = None
    """Status to answer with instead."""
    retry_after: int | None = None
    """The `retry-after` of the refusal, in seconds."""
    exit: bool = False
    """Whether dying takes the whole process (else: this connection, reset)."""
    times: int | None = None
    """Number of requests that the faults affect; later ones are served. Null: all."""
    lacks: list[str] = []
    """Routes that the engine does not have, whatever `times` is."""


class FaultSchedule:
    """The faults in force, counted down request by request."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self._remaining = faults.times

    def next(self) -> Faults:
        """Return the faults for the next request."""
        if self._remaining == 0:
            return Faults(token_ms=self.faults.token_ms, lacks=self.faults.lacks)
        if self._remaining is not None:
            self._remaining -= 1
        return self.faults


async def inject(faults: Faults, token: int, abort: Callable[[], None]) -> None:
    """Inject the faults due before token number `token` of an answer. Raises ConnectionResetError after calling `abort`."""
    if faults.hang_after == token:
        await asyncio.Event().wait()
    if faults.die_after == token:
        if faults.exit:
            os._exit(1)
        abort()
        raise ConnectionResetError("a fault that was asked for")
    if faults.token_ms:
        await asyncio.sleep(faults.token_ms / 1000)
