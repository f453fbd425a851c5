"""Follow the live pointers. A flip waits until a replica lists the new version, then moves the local pointer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

from gateway.catalog import Catalog, Target
from gateway.routing.fleet import Fleet
from gateway.telemetry.metrics import Metrics
from ratchet.buffer.registry import Registry
from ratchet.clock import monotonic
from ratchet.config import Config
from ratchet.errors import StoreError
from ratchet.types import PolicyEvent

AGAIN_SECONDS = 0.1
PATIENCE_SECONDS = 10.0
"""Seconds a flip waits for a replica that can serve the new version; after that, it waits while one can serve the old version."""

log = logging.getLogger(__name__)


class _Flip(NamedTuple):
    epoch: int
    task: asyncio.Task[None]


class Pointers:
    """Keeps the pointers of `catalog` equal to the registry's. `moved` is called after each change."""

    def __init__(self, registry: Registry, catalog: Catalog, fleet: Fleet, metrics: Metrics, moved: Callable[[], None]) -> None:
        self._registry = registry
        self._catalog = catalog
        self._fleet = fleet
        self._metrics = metrics
        self._moved = moved
        self._flips: dict[str, _Flip] = {}

    async def begin(self, config: Config) -> None:
        """Create the configured policies that are new and read the pointers of all. Raises StoreError."""
        for name, policy in config.policies.items():
            record = await self._registry.ensure(name, policy.base)
            self._catalog.retain(name, await self._registry.retained(name, self._catalog.keep(name)))
            self._catalog.move(name, record.live, record.epoch)

    async def follow(self) -> None:
        """Follow events for ever. A flip that waits does not delay other policies."""
        async with asyncio.TaskGroup() as flips:
            async for event in self._registry.events():
                if self._catalog.pointer(event.policy) is not None:
                    self._take(event, flips)

    def _take(self, event: PolicyEvent, flips: asyncio.TaskGroup) -> None:
        if event.kind == "loading":
            self._catalog.swapping.add(event.policy)
            return
        waiting = self._flips.get(event.policy)
        if event.kind == "flip" and event.epoch > (waiting.epoch if waiting is not None else self._catalog.epochs[event.policy]):
            if waiting is not None:
                waiting.task.cancel()
            self._flips[event.policy] = _Flip(event.epoch, flips.create_task(self._flip(event)))
        elif waiting is None:
            self._catalog.swapping.discard(event.policy)

    async def _flip(self, event: PolicyEvent) -> None:
        await self._retain(event.policy)
        began = monotonic()
        await self._fleet.relist(self._old(event.policy).base)
        while self._must_wait(event, monotonic() - began):
            await asyncio.sleep(AGAIN_SECONDS)
            await self._fleet.relist(self._old(event.policy).base)
        # Nothing is awaited from here on, so that no newer flip can interfere.
        del self._flips[event.policy]
        self._catalog.swapping.discard(event.policy)
        if self._catalog.move(event.policy, event.live, event.epoch):
            self._metrics.flips.labels(event.policy).inc()
            log.info("%s is live", self._old(event.policy).label)
            self._moved()

    def _must_wait(self, event: PolicyEvent, waited: float) -> bool:
        """Whether moving now would cause 503s: no replica can serve the new version, but the old one may still be served."""
        old = self._old(event.policy)
        if not self._fleet.ready or self._fleet.serves(old._replace(version=event.live)):
            return False
        return waited < PATIENCE_SECONDS or self._fleet.serves(old)

    def _old(self, policy: str) -> Target:
        """The target of the policy until the pointer moves."""
        return self._catalog.resolve(policy)

    async def _retain(self, policy: str) -> None:
        """Read the versions that may be pinned. Retries until the store answers, since no further event would trigger it."""
        while True:
            try:
                self._catalog.retain(policy, await self._registry.retained(policy, self._catalog.keep(policy)))
                return
            except StoreError:
                await asyncio.sleep(AGAIN_SECONDS)
