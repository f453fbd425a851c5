"""Whether memory stays flat, and how much of it an idle stream takes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from bench.gateways import mock
from bench.gateways.measure import STEP_US
from bench.gateways.mock import Mock, request_body
from bench.gateways.ours import recorded
from bench.gateways.target import Target
from ratchet.clock import monotonic

SLICES = 10
CONNECTIONS = 32
TOKENS = 8
OPEN_SECONDS = 60.0
POLL_SECONDS = 0.05
MIB = 2**20


@dataclass
class Flat:
    """Bytes of memory after each tenth of the requests."""

    requests: int
    recorded: int
    errors: int
    after: list[int]

    @property
    def growth(self) -> int:
        """Bytes from the second tenth, when the caches are warm, to the end."""
        return self.after[-1] - self.after[1]


@dataclass
class Idle:
    """Bytes of memory before, with the streams open, after they waited, and after they ended."""

    streams: int
    before: int
    opened: int
    waited: int
    ended: int
    errors: int

    @property
    def a_stream(self) -> float:
        """Bytes that an idle stream takes."""
        return (self.opened - self.before) / self.streams


async def flat(target: Target, engine: Mock, folder: Path, requests: int) -> Flat:
    """Measure memory over `requests` streamed requests."""
    engine.step(0)
    body, before, errors, after = request_body(folder, tokens=TOKENS), await recorded(target), 0, []
    for _ in range(SLICES):
        result = await mock.load(target.url, body, target.headers, c=CONNECTIONS, n=requests // SLICES)
        errors += sum(result.errors.values())
        after.append(target.memory())
    return Flat(requests, await recorded(target, before + requests - errors) - before, errors, after)


async def idle(target: Target, engine: Mock, folder: Path, streams: int, seconds: float) -> Idle:
    """Measure memory with `streams` streams that have their first chunk and wait `seconds` for the next one."""
    body = request_body(folder, tokens=TOKENS)
    engine.step(0)
    kept = await recorded(target)
    warm = await mock.load(target.url, body, target.headers, c=CONNECTIONS, n=CONNECTIONS * 4)
    before = target.memory()
    engine.step(-1)
    running = asyncio.create_task(mock.load(target.url, body, target.headers, c=streams, n=streams, d=seconds, w=OPEN_SECONDS * 2))
    try:
        await _until_running(engine, streams)
        opened = target.memory()
        await asyncio.sleep(seconds)
        waited = target.memory()
    finally:
        engine.step(STEP_US)
    result = await running
    await recorded(target, kept + warm.ok + result.ok)  # so many at once may be spooled; the next part must not count them
    return Idle(streams, before, opened, waited, target.memory(), streams - result.ok)


async def _until_running(engine: Mock, streams: int) -> None:
    deadline = monotonic() + OPEN_SECONDS
    while engine.running() < streams:
        if monotonic() > deadline:
            raise RuntimeError(f"only {engine.running()} of {streams} streams were open after {OPEN_SECONDS:.0f} s")
        await asyncio.sleep(POLL_SECONDS)
