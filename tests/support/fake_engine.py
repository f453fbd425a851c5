"""The fake engine, in this process, over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from engines.fake.app import FakeEngine
from engines.fake.faults import Faults
from ratchet.clock import monotonic
from ratchet.types import EngineRecord

BASE = "smollm2"


@asynccontextmanager
async def fake_engine(faults: Faults | None = None, *, slots: int = 32) -> AsyncIterator[tuple[FakeEngine, EngineRecord]]:
    """A fake that serves `smollm2`, and its record."""
    engine = FakeEngine(BASE, slots=slots, faults=faults or Faults())
    runner = web.AppRunner(engine.app(), handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield engine, EngineRecord("fake", "fake", BASE, url, BASE, launched=True, slots=slots)
    finally:
        await runner.cleanup()


def bare_adapter(folder: Path) -> Path:
    """A folder the fake takes for an adapter."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    return folder


async def until(condition: Callable[[], Awaitable[bool]], *, seconds: float = 30) -> None:
    """Returns once `condition` holds; AssertionError past the deadline. For what other processes do, which no event tells."""
    deadline = monotonic() + seconds
    while not await condition():
        assert monotonic() < deadline, "it did not come to hold in time"
        await asyncio.sleep(0.02)
