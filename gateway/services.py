"""The parts of a running gateway, started and stopped together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from gateway.access.keys import KeyRing
from gateway.access.quota import Quota
from gateway.catalog import Catalog
from gateway.dialects import every
from gateway.errors import store_may_fail
from gateway.record.drain import Drain
from gateway.record.outbox import Outbox
from gateway.record.recorder import Recorder
from gateway.relay.dispatch import Dispatcher
from gateway.relay.relay import Relay
from gateway.relay.upstream import Upstream
from gateway.routing.adapter_cache import AdapterCache
from gateway.routing.fleet import Fleet
from gateway.routing.heartbeat import HeartbeatSender
from gateway.routing.pointers import Pointers
from gateway.telemetry.gauges import Gauges, add_fleet
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.observe import Observer
from gateway.workers.worker_pool import WorkerPool
from ratchet.buffer import Store
from ratchet.config import Config
from ratchet.tasks import end

EXPIRY_SECONDS = 10.0
"""Seconds between two rounds that expire feedback."""
EXPIRY_BATCH = 1000
FLUSH_SECONDS = 5.0
"""Seconds that the shutdown waits for the recorder, and then for the spool."""
INTERRUPT_SECONDS = 2.0
"""Seconds that interrupted requests get to send their last bytes."""

log = logging.getLogger(__name__)


class Services:
    """Makes the parts and connects them. Make it inside the event loop, `start` it, and `drain` and `stop` it in the end."""

    def __init__(self, config: Config, data: Path, store: Store) -> None:
        self.config = config
        self.store = store
        self.metrics = Metrics()
        self.observer = Observer(self.metrics, config.gateway.telemetry)
        self.keys = KeyRing(store.keys)
        self.quota = Quota(store.quotas, self.metrics, config.gateway.quota)
        self.catalog = Catalog(config)
        self.adapter_cache = AdapterCache(config, data)
        self.fleet = Fleet(store, self.catalog, self.adapter_cache, config.gateway.routing.breaker)
        self.outbox = Outbox(data, config.gateway.outbox, self.metrics)
        self.worker_pool = WorkerPool(config, data, self.metrics, lambda: self.fleet.ready)
        self.spool_drain = Drain(self.outbox, store.interactions, self.metrics, config.gateway.outbox.adopt_seconds)
        self.recorder = Recorder(store.interactions, self.outbox, self.metrics, config.gateway)
        self.upstream = Upstream(config.gateway, self.fleet)
        self.dispatcher = Dispatcher(self.upstream.begin, self.fleet, self.catalog, config.gateway, self.metrics)
        self.dialects = every(store.interactions, config.gateway)
        self.relay = Relay(config.gateway, self.catalog, self.dialects, self.dispatcher, self.recorder, self.metrics, self.quota)
        self.heartbeat = HeartbeatSender(store, self.catalog, self.fleet)
        self.pointers = Pointers(store.registry, self.catalog, self.fleet, self.metrics, self.heartbeat.send_now)
        self.gauges = Gauges(self.metrics.registry)
        add_fleet(self.gauges, self.fleet)
        self.gauges.add_one("ratchet_recorder_queue", "Answers that wait to be recorded", lambda: self.recorder.waiting)
        self.gauges.add_one("ratchet_spool_bytes", "Bytes in this gateway's spool that wait for the store", lambda: self.outbox.waiting)
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Gets an exception if a part that must run for ever ends."""
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Read the live pointers, then start the parts that run in the background. StoreError."""
        await self.pointers.begin(self.config)
        await self.fleet.announce(self.config.engines)
        await self.outbox.start()
        parts = (
            self.recorder.run(),
            self.spool_drain.run(),
            self.fleet.watch(),
            self.dispatcher.router.watch(),
            self.pointers.follow(),
            self.heartbeat.run(),
            self.quota.run(),
            self.relay.clocks.run(),
            self.upstream.run(),
            self._expire_feedback(),
        )
        for part in parts:
            self._run(part)

    async def drain(self) -> None:
        """Refuse new inference requests, wait `drain_seconds` for those under way, interrupt the rest, and flush the recorder."""
        self.relay.draining = True
        tasks = [exchange.task for exchange in self.relay.running.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=self.config.gateway.drain_seconds)
        remaining = list(self.relay.running.values())
        for exchange in remaining:
            exchange.interrupt("truncated")
        if remaining:
            await asyncio.wait([exchange.task for exchange in remaining], timeout=INTERRUPT_SECONDS)
        if not await self.recorder.flush(FLUSH_SECONDS):
            log.error("answers were left unrecorded: neither the store nor the spool took them")
        if not await self.spool_drain.wait_drained(FLUSH_SECONDS):
            log.warning("answers wait in the spool; the next gateway of this data directory brings them to the store")

    async def stop(self) -> None:
        """Stop all parts."""
        await end(self._tasks)
        await self.keys.close()
        await self.quota.close()
        await self.fleet.close()
        await self.upstream.close()
        await self.observer.close()
        await self.spool_drain.close()
        await self.outbox.close()

    def _run(self, part: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(part)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and not self.failed.done():
            self.failed.set_exception(task.exception() or RuntimeError("a background task ended"))

    async def _expire_feedback(self) -> None:
        """Expire feedback that waited too long, for ever."""
        while True:
            due = 0
            with store_may_fail(log, "expiring feedback"):
                due = await self.store.feedback.expire(EXPIRY_BATCH)
            await asyncio.sleep(EXPIRY_SECONDS if due < EXPIRY_BATCH else 0)
