"""Report each second which versions are in use and which pointers are followed, so that the learner unloads no version too early."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from gateway.catalog import Catalog
from gateway.errors import store_may_fail
from gateway.routing.fleet import Fleet
from ratchet import names
from ratchet.buffer import Store
from ratchet.types import Heartbeat

INTERVAL_SECONDS = 1.0

log = logging.getLogger(__name__)


class HeartbeatSender:
    """Sends this gateway's heartbeats."""

    def __init__(self, store: Store, catalog: Catalog, fleet: Fleet) -> None:
        self.gateway = names.mint("gw_")
        self._store = store
        self._catalog = catalog
        self._fleet = fleet
        self._wake = asyncio.Event()

    def send_now(self) -> None:
        """Send a heartbeat at once."""
        self._wake.set()

    async def run(self) -> None:
        """Send heartbeats for ever. Those that are due while the store is unavailable are lost."""
        while True:
            self._wake.clear()
            with store_may_fail(log, "the heartbeat"):
                await self._store.fleet.heartbeat(self._current())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), INTERVAL_SECONDS)

    def _current(self) -> Heartbeat:
        engines = {replica.name: replica.total for replica in self._fleet.all() if replica.total}
        return Heartbeat(self.gateway, dict(self._fleet.inflight), self._catalog.epochs, engines)
