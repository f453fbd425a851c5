"""The replicas that exist, which of them answer, and which adapters each holds."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec

from engines.reconcile import reconcile
from gateway.catalog import Catalog, Target
from gateway.errors import store_may_fail
from gateway.routing.adapter_cache import AdapterCache
from gateway.routing.replica import Replica
from ratchet.buffer import Store
from ratchet.clock import monotonic
from ratchet.config import BreakerConfig, EngineConfig
from ratchet.errors import AdapterError, EngineError, EngineUnavailable, EngineUnsupported
from ratchet.tasks import end
from ratchet.types import EngineRecord

LIST_EVERY = 1.0
"""Seconds between two probes of the fleet."""
LIST_SECONDS = 15.0
IDLE_SECONDS = 30.0
"""Seconds without an answered request after which a replica has to prove again that it generates."""
RESTORE_SECONDS = 30.0
"""Seconds until an adapter that an engine refused, or that was not sound, is tried again."""
FAILURES = 3
"""Failed probes in a row after which a replica is taken out of use. A busy machine may answer one late."""

log = logging.getLogger(__name__)


class Fleet:
    """The replicas by name. `watch` keeps them up to date; everything else reads them."""

    def __init__(self, store: Store, catalog: Catalog, adapter_cache: AdapterCache, breaker: BreakerConfig | None = None) -> None:
        self.replicas: dict[str, Replica] = {}
        self.inflight: Counter[str] = Counter()
        self._store = store
        self._catalog = catalog
        self._adapter_cache = adapter_cache
        self._breaker = breaker
        self._configured: frozenset[str] = frozenset()
        self._refreshing = asyncio.Lock()
        self._locks: dict[str, asyncio.Lock] = {}
        self._probes: dict[str, asyncio.Task[None]] = {}

    def all(self) -> Iterable[Replica]:
        return self.replicas.values()

    @property
    def ready(self) -> bool:
        """Whether one replica can answer."""
        return any(replica.healthy and replica.record.desired == "serve" for replica in self.all())

    def serves(self, target: Target) -> bool:
        """Whether one replica can answer for `target`."""
        return any(replica.serves(target.base, target.adapter) for replica in self.all())

    async def announce(self, engines: Iterable[EngineConfig]) -> None:
        """Register the configured engines that already run (`url`) in the store, except those that an operator removed."""
        engines = list(engines)
        self._configured = frozenset(engine.name for engine in engines)
        known = {record.name: record for record in await self._store.fleet.engines()}
        removed = await self._store.fleet.removed()
        for engine in engines:
            if engine.name in removed:
                log.warning("engine %s is configured, but an operator removed it; POST /admin/engines adds it again", engine.name)
            elif engine.url is not None:
                before = known.get(engine.name)
                record = described(engine, engine.url)
                if before is not None and before.url == engine.url:
                    record.served_name, record.pools = record.served_name or before.served_name, before.pools
                await self._store.fleet.put(record)

    async def watch(self) -> None:
        """Probe every replica once a second, for ever. While the store is unavailable, probe those already known."""
        while True:
            with store_may_fail(log, "reading the fleet"):
                await self.refresh()
                await self._finish_removals()
            for replica in self.all():
                running = self._probes.get(replica.name)
                if running is None or running.done():
                    self._probes[replica.name] = asyncio.create_task(self._look(replica))
            await asyncio.sleep(LIST_EVERY)

    async def relist(self, base: str) -> None:
        """Ask the replicas of `base`, concurrently, which adapters they hold."""
        able = [r for r in self.all() if r.healthy and r.record.model == base]
        await asyncio.gather(*(self._list(replica) for replica in able), return_exceptions=True)

    async def place(self, base: str, wanted: dict[str, Path]) -> None:
        """Load adapters on every healthy replica of `base` that generates.

        Raises EngineError if one refuses them or there is no such replica, EngineUnsupported if one lacks them and takes adapters
        only at its start.
        """
        able = [r for r in self.all() if r.serves(base, None) and not r.record.pools]
        if not able:
            raise EngineUnavailable(f"no engine of {base} that generates answers")
        for replica, held in zip(able, await asyncio.gather(*(reconcile(r.engine, wanted, unload=False) for r in able)), strict=True):
            if not wanted.keys() <= held:
                if replica.engine.brings != "load":
                    raise EngineUnsupported(f"{replica.name} takes adapters only at its start and does not hold {', '.join(wanted)}")
                raise EngineUnavailable("a replica does not list what it was given")
            replica.barred -= wanted.keys()
        await self.relist(base)

    async def close(self) -> None:
        await end(self._probes.values())
        for replica in self.all():
            await replica.engine.close()

    async def refresh(self) -> None:
        """Read the engines from the store. Raises StoreError."""
        async with self._refreshing:
            await self._take({record.name: record for record in await self._store.fleet.engines()})

    async def _take(self, records: dict[str, EngineRecord]) -> None:
        for name in [name for name in self.replicas if name not in records]:
            await self._drop(name)
        for name, record in records.items():
            known = self.replicas.get(name)
            if known is None or not known.update(record):
                await self._drop(name)
                self.replicas[name] = Replica(record, self.inflight, self._breaker)
            elif known.served and not record.served_name:
                # The engine was asked for the name of its base while the store was unavailable.
                await self._store.fleet.amend(known.record)

    async def _finish_removals(self) -> None:
        """Finish the removal of engines at which no gateway has a request in flight."""
        leaving = [replica for replica in self.all() if replica.record.desired == "remove" and not replica.total]
        heartbeats = await self._store.fleet.heartbeats() if leaving else []
        for replica in leaving:
            if not any(heartbeat.engines.get(replica.name) for heartbeat in heartbeats):
                await self._store.fleet.forget(replica.name, again=replica.name not in self._configured)

    async def _drop(self, name: str) -> None:
        probe, replica = self._probes.pop(name, None), self.replicas.pop(name, None)
        if probe is not None:
            await end([probe])
        if replica is not None:
            replica.healthy = False
            await replica.engine.close()

    async def _look(self, replica: Replica) -> None:
        if replica.record.state != "ready":
            replica.lost()
            return
        try:
            await self._list(replica)
            await self._restore(replica)
            idle = monotonic() - replica.generated > IDLE_SECONDS and not replica.total
            if not replica.healthy or replica.failures or idle:
                await self._prove(replica)
            replica.failures = 0
            if not replica.healthy:
                log.info("engine %s answers and holds %s", replica.name, replica.adapters or "no adapter")
            replica.healthy = True
        except (EngineError, TimeoutError) as error:
            self._failed(replica, error)

    async def _list(self, replica: Replica) -> None:
        # One at a time: an answer begun before a load must not overwrite one begun after it.
        async with self._locks.setdefault(replica.name, asyncio.Lock()), asyncio.timeout(LIST_SECONDS):
            listed = await replica.engine.models()
            if not replica.served and listed:
                await self._amend(replica, served_name=listed[0])
            replica.lists(listed)

    async def _prove(self, replica: Replica) -> None:
        pools = not await replica.engine.health()
        replica.proved()
        if pools != replica.record.pools and not replica.record.launched:
            await self._amend(replica, pools=pools)

    async def _amend(self, replica: Replica, **learned: object) -> None:
        """Store what was learned of an engine, for other gateways and the learner."""
        replica.record = msgspec.structs.replace(replica.record, **learned)
        replica.engine.record = replica.record
        with store_may_fail(log, "saying what an engine is"):
            await self._store.fleet.amend(replica.record)

    async def _restore(self, replica: Replica) -> None:
        """Load missing adapters on an engine that Ratchet did not launch. (Launched ones get theirs before they are ready.)

        A newly found engine may hold another adapter under one of our names, so then all of ours are compared by path.
        """
        if replica.record.launched or replica.record.pools or monotonic() < replica.restore_after:
            return
        wanted: dict[str, Path | None] = {}
        for policy in self._catalog.epochs:
            pointer = self._catalog.pointer(policy)
            if pointer is not None and pointer.base == replica.record.model:
                wanted |= await self._missing(policy, replica)
        sound = {name: path for name, path in wanted.items() if path is not None}
        replica.barred = (replica.barred | wanted.keys()) - sound.keys()
        if sound or not replica.compared:
            held = await reconcile(replica.engine, sound, unload=False)
            replica.compared = True
            replica.lists(held)
        if not wanted.keys() <= replica.names:
            replica.restore_after = monotonic() + RESTORE_SECONDS

    async def _missing(self, policy: str, replica: Replica) -> dict[str, Path | None]:
        """The retained adapters that the replica does not list; None for one that fails verification."""
        found: dict[str, Path | None] = {}
        for record in self._catalog.retained(policy).values():
            name = self._adapter_cache.name(record)
            if name not in replica.names:
                try:
                    found[name] = await self._adapter_cache.verified(record)
                except AdapterError as error:
                    log.error("%s is not loaded on %s: %s", name, replica.name, error)
                    found[name] = None
        return found

    def _failed(self, replica: Replica, error: BaseException) -> None:
        replica.failures += 1
        if replica.healthy and replica.failures >= FAILURES:
            log.warning("engine %s is out: %s", replica.name, error or type(error).__name__)
            replica.lost()


def described(engine: EngineConfig, url: str) -> EngineRecord:
    """Return the record of a configured engine that already runs."""
    return EngineRecord(
        engine.name,
        engine.kind,
        engine.model,
        url,
        engine.served_name or "",
        adapters_at=engine.adapters_at,
        api_key=engine.api_key,
        weight=engine.weight,
    )
