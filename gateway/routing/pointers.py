"""Follow the live pointers: a flip first makes sure that the replicas list the new version, then moves the local pointer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from gateway.catalog import Catalog, Target
from gateway.metrics import Metrics
from gateway.routing.fleet import Fleet
from gateway.routing.router import pick
from ratchet.buffer.registry import Registry
from ratchet.clock import monotonic
from ratchet.config import Config
from ratchet.errors import StoreError
from ratchet.types import PolicyEvent

AGAIN_SECONDS = 0.1
PATIENCE_SECONDS = 10.0
"""How long the old version goes on serving while no replica lists the new one yet."""

log = logging.getLogger(__name__)


class Pointers:
    """Keeps `catalog` at what the registry says; `moved` is called after each change."""

    def __init__(self, registry: Registry, catalog: Catalog, fleet: Fleet, metrics: Metrics, moved: Callable[[], None]) -> None:
        self._registry = registry
        self._catalog = catalog
        self._fleet = fleet
        self._metrics = metrics
        self._moved = moved

    async def begin(self, config: Config) -> None:
        """Makes the configured policies and takes their pointers as they are. StoreError."""
        for name, policy in config.policies.items():
            record = await self._registry.ensure(name, policy.base)
            self._catalog.retain(name, await self._registry.retained(name, self._catalog.keep(name)))
            self._catalog.move(name, record.live, record.epoch)

    async def follow(self) -> None:
        """Takes events for ever."""
        async for event in self._registry.events():
            if self._catalog.pointer(event.policy) is not None:
                await self._take(event)

    async def _take(self, event: PolicyEvent) -> None:
        if event.kind == "loading":
            self._catalog.swapping.add(event.policy)
            return
        pointer = self._catalog.pointer(event.policy)
        if event.kind == "flip" and pointer is not None and event.epoch > pointer.epoch:
            await self._flip(event, pointer.base)
        self._catalog.swapping.discard(event.policy)

    async def _flip(self, event: PolicyEvent, base: str) -> None:
        await self._retain(event.policy)
        target, deadline = Target(base, event.policy, event.live), monotonic() + PATIENCE_SECONDS
        await self._fleet.relist(base)
        while self._fleet.ready and pick(self._fleet.all(), target) is None and monotonic() < deadline:
            await asyncio.sleep(AGAIN_SECONDS)
            await self._fleet.relist(base)
        if self._catalog.move(event.policy, event.live, event.epoch):
            self._metrics.flips.labels(event.policy).inc()
            log.info("%s is live", target.label)
            self._moved()

    async def _retain(self, policy: str) -> None:
        """The versions that may be pinned; asked again until the store answers, since no other event will come."""
        while True:
            try:
                self._catalog.retain(policy, await self._registry.retained(policy, self._catalog.keep(policy)))
                return
            except StoreError:
                await asyncio.sleep(AGAIN_SECONDS)
