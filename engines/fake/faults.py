"""Faults that the fake engine commits on purpose, set by flags or by `POST /fake/faults`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import msgspec


class Faults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`die_after` and `hang_after` count an answer's tokens; 0 is before the first byte, null never."""

    token_ms: float = 0
    """Milliseconds a token takes."""
    die_after: int | None = None
    hang_after: int | None = None
    refuse: int | None = None
    """Status to answer instead."""
    retry_after: int | None = None
    """Seconds of the refusal's `Retry-After`."""
    exit: bool = False
    """Whether dying takes the whole process (else: this connection, reset)."""
    times: int | None = None
    """Requests that are hit; those after are served. Null: all."""
    lacks: list[str] = []
    """Routes that the engine does not have, `times` or not."""


class FaultPlan:
    """The faults in force, request by request."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self._remaining = faults.times

    def next(self) -> Faults:
        """The faults of the next request."""
        if self._remaining == 0:
            return Faults(token_ms=self.faults.token_ms, lacks=self.faults.lacks)
        if self._remaining is not None:
            self._remaining -= 1
        return self.faults


async def inject(faults: Faults, token: int, abort: Callable[[], None]) -> None:
    """Commit the fault that is due before token number `token` of an answer. ConnectionResetError after `abort` was called."""
    if faults.hang_after == token:
        await asyncio.Event().wait()
    if faults.die_after == token:
        if faults.exit:
            os._exit(1)
        abort()
        raise ConnectionResetError("a fault that was asked for")
    if faults.token_ms:
        await asyncio.sleep(faults.token_ms / 1000)
