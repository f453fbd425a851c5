"""The other engine under contract, in this process, over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from engines import connect, wire
from ratchet.types import EngineRecord
from tests.contracts.other.server import OtherEngine, listen
from tests.contracts.sites import BASE, Site

SLOTS = 8


class OtherSite(Site):
    """Holds other adapters by another life at the same address."""

    server: OtherEngine
    runner: web.AppRunner

    async def start(self, adapters: Mapping[str, Path]) -> None:
        port = int(self.engine.record.url.rpartition(":")[2]) if self.engine.record.url else 0
        self.server = OtherEngine(BASE, {name: str(path) for name, path in adapters.items()}, SLOTS)
        self.runner = await listen(self.server, port)
        self.engine.record.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"

    async def hold(self, wanted: Mapping[str, Path]) -> list[str]:
        await self.runner.cleanup()
        await self.start(wanted)
        return await self.engine.models()


@asynccontextmanager
async def other_engine() -> AsyncIterator[OtherSite]:
    """One that serves `smollm2` and no adapter yet."""
    record = EngineRecord("other", "other", BASE, "", BASE, launched=True, slots=SLOTS)
    site = OtherSite(connect(record), wire("other"), real=False)
    await site.start({})
    site.engine = connect(record)  # its client keeps the address
    try:
        yield site
    finally:
        await site.engine.close()
        await site.runner.cleanup()
