"""The other workers of a gateway, as the first one runs them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from gateway.telemetry.metrics import Metrics
from gateway.workers import aggregation
from gateway.workers.channel import Assignment
from gateway.workers.worker_process import WorkerProcess
from ratchet.config import Config
from ratchet.tasks import end

POLL_SECONDS = 0.1
FIRST = "0"
"""The first worker's name in metrics."""
AFTER_DRAIN_SECONDS = 15.0
"""Seconds a worker gets to record and flush once its requests are over."""


class WorkerPool:
    """All other workers: none with `gateway.workers: 1`, and none in a worker that is not the first.

    `has_engine` says whether this worker knows an engine that can answer.
    """

    def __init__(self, config: Config, data: Path, metrics: Metrics, has_engine: Callable[[], bool]) -> None:
        self._config = config
        self._metrics = metrics
        self._has_engine = has_engine
        self._first_keys = False
        self.engines_found = config.gateway.workers == 1
        """Whether every worker has found an engine once. Until then none reports that it is ready: the next request may reach another."""
        self._tasks: list[asyncio.Task[None]] = []
        silence = config.gateway.worker_silence_seconds
        self._others = [WorkerProcess(n, data, silence, self._assignment, self._restarted) for n in range(1, config.gateway.workers)]

    async def run(self, port: int, first_keys: bool, listening: Callable[[], None]) -> None:
        """Run the workers on data port `port` until cancelled; call `listening` once all listen. RatchetError if one never does."""
        config = self._config
        self._config = config.model_copy(update={"gateway": config.gateway.model_copy(update={"port": port, "workers": 1})})
        self._first_keys = first_keys
        parts = (self._announce(listening), *(worker.keep() for worker in self._others))
        self._tasks = [asyncio.create_task(part) for part in parts]
        await asyncio.gather(*self._tasks)

    async def metrics_text(self) -> bytes:
        """Return the metrics of all workers in Prometheus' text format."""
        await asyncio.gather(*(worker.report() for worker in self._others))
        # Taken at one moment, so that what a worker counted is neither there twice nor missing when it has just ended.
        others = [(worker.name, worker.past, worker.last) for worker in self._others]
        return await asyncio.to_thread(self._merged_text, others)

    async def load(self) -> dict[str, tuple[int, float]]:
        """Return the requests and tokens that the other workers have at each engine, by its name."""
        total: dict[str, tuple[int, float]] = {}
        for reply in await asyncio.gather(*(worker.ask("load") for worker in self._others)):
            reported = msgspec.msgpack.decode(reply, type=dict[str, tuple[int, float]]) if reply else {}
            for name, (requests, tokens) in reported.items():
                before = total.get(name, (0, 0))
                total[name] = before[0] + requests, before[1] + tokens
        return total

    async def forget_key(self, key_id: str) -> None:
        """Make every worker forget a key that was revoked. When this returns, no worker that replies accepts it."""
        await asyncio.gather(*(worker.ask("forget_key", key_id) for worker in self._others))

    async def stop(self) -> None:
        """Let the workers drain, each as long as this one may, and kill those that still run after that."""
        await end(self._tasks)
        ends: list[Coroutine[Any, Any, int]] = []
        for worker in self._others:
            worker.signal(signal.SIGTERM)
            if worker.process is not None:
                ends.append(worker.process.wait())
        if not ends:
            return
        _, late = await asyncio.wait(map(asyncio.ensure_future, ends), timeout=self._config.gateway.drain_seconds + AFTER_DRAIN_SECONDS)
        for worker in self._others if late else ():
            worker.signal(signal.SIGKILL)

    def _assignment(self) -> Assignment:
        return Assignment(self._config.model_dump(mode="json"), self._first_keys, self.engines_found)

    def _restarted(self, name: str) -> None:
        self._metrics.worker_restarts.labels(name).inc()

    async def _announce(self, listening: Callable[[], None]) -> None:
        for worker in self._others:
            await worker.listening.wait()
        listening()
        while not self.engines_found:
            found = await asyncio.gather(*(worker.ask("has_engine") for worker in self._others))
            self.engines_found = self._has_engine() and all(found)
            if not self.engines_found:
                await asyncio.sleep(POLL_SECONDS)
        await asyncio.gather(*(worker.ask("engines_found") for worker in self._others))
        await asyncio.get_running_loop().create_future()  # `run` lasts until it is cancelled, also with no other worker

    def _merged_text(self, others: list[tuple[str, aggregation.Families, bytes]]) -> bytes:
        if not others:
            return self._metrics.text()
        reports = [(FIRST, aggregation.collect(self._metrics.registry))]
        for name, past, last in others:
            reports += [(name, past), (name, aggregation.decode(last))]
        return aggregation.exposition(aggregation.merge(reports))
