"""The other workers, as the first sees them: started, restarted, asked, ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from gateway.routing.fleet import Fleet
from gateway.telemetry.metrics import Metrics
from gateway.workers import sums
from gateway.workers.link import BEAT, BEAT_SECONDS, LISTENS, Answer, Kind, Link, Order, Question
from ratchet.clock import monotonic
from ratchet.config import Config
from ratchet.errors import RatchetError
from ratchet.process import spawn
from ratchet.tasks import end
from ratchet.up.parts import CANNOT_START, EARLY_DEATHS, WRONG_CONFIGURATION, Backoff

ASK_SECONDS = 2.0
"""Seconds a worker may take to answer; past that, what it told before counts."""
MOST_ASKED = 64
"""Questions that a worker may leave open; past that it is not asked."""
LOOK_SECONDS = 0.1
FIRST = "0"
AFTER_DRAIN_SECONDS = 15.0
"""Seconds a worker gets to record and flush once its requests are over."""

log = logging.getLogger(__name__)


class Worker:
    """One other worker. `keep` runs it for ever; `order` is asked for what it is told at each start; `silence` is in seconds."""

    def __init__(self, number: int, data: Path, silence: float, order: Callable[[], Order], restarted: Callable[[str], None]) -> None:
        self.name = str(number)
        self.listening = asyncio.Event()
        """Set once it listened for the first time."""
        self.last: bytes = b""
        """The families it told last, packed; b"" if it has told none since it started."""
        self.past: sums.Families = []
        """What those before it had counted."""
        self.process: Process | None = None
        self._argv = [sys.executable, *(["-P"] if sys.flags.safe_path else []), "-m", "gateway", "--data", str(data), "--worker"]
        self._order = order
        self._restarted = restarted
        self._silence = silence
        self._silent = -math.inf
        """Seconds since it was heard; -inf before it first was."""
        self._link: Link | None = None
        self._asked = self._open = 0
        self._waiting: dict[int, asyncio.Future[bytes]] = {}

    async def keep(self) -> None:
        """RatchetError: it dies each time before it ever listened."""
        backoff, deaths = Backoff(), 0
        while True:
            started = monotonic()
            status = await self._life()
            deaths += 1
            if not self.listening.is_set() and (status == WRONG_CONFIGURATION or deaths >= EARLY_DEATHS):
                raise RatchetError(f"worker {self.name} ends with status {status} each time it starts")
            self.past = await asyncio.to_thread(_lasting, self.past, self.last)
            self.last = b""
            log.warning("worker %s ended with status %d; it is started again", self.name, status)
            self._restarted(self.name)
            await asyncio.sleep(backoff.after(monotonic() - started))

    async def ask(self, kind: Kind, text: str = "") -> bytes | None:
        """Its answer; None if it does not live or takes longer than ASK_SECONDS."""
        if self._link is None or self._open >= MOST_ASKED:
            return None
        self._asked += 1
        number = self._asked
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self._open += 1
        try:
            async with asyncio.timeout(ASK_SECONDS):
                await self._link.send(Question(number, kind, text))
                return await answer
        except (OSError, TimeoutError):
            return None
        finally:
            self._waiting.pop(number, None)

    async def metrics(self) -> None:
        """Renews `last`, if it answers."""
        self.last = await self.ask("metrics") or self.last

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)

    async def _life(self) -> int:
        """From its start to its exit status."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            try:
                self.process = await spawn(self._argv, stdin=theirs.fileno(), name=f"worker {self.name}")
            except OSError:
                return CANNOT_START
            theirs.close()
            link = await Link.over(ours)
            watching = asyncio.create_task(self._watch())
            try:
                with contextlib.suppress(OSError, EOFError, msgspec.MsgspecError):
                    await self._hear(link)
                    # It says nothing any more: whatever it is, it is no worker.
                self.signal(signal.SIGTERM)
                return await self.process.wait()
            finally:
                self._unheard()
                link.close()
                await end([watching])

    async def _watch(self) -> None:
        """Kills it once it has been silent for too long. Looks are counted: time in which this process itself stood still does not."""
        self._silent = -math.inf
        while self._silent < self._silence:
            await asyncio.sleep(BEAT_SECONDS)
            self._silent += BEAT_SECONDS
        log.error("worker %s stands still; it is killed", self.name)
        self.signal(signal.SIGKILL)

    async def _hear(self, link: Link) -> None:
        await link.send(self._order())
        while True:
            answer = msgspec.msgpack.decode(await link.receive(), type=Answer)
            self._silent = 0.0
            if answer.number == BEAT:
                continue
            if answer.number == LISTENS:
                self._link = link
                self.listening.set()
                continue
            self._open -= 1
            waiting = self._waiting.pop(answer.number, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(answer.data)

    def _unheard(self) -> None:
        self._link, self._open = None, 0
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(BrokenPipeError("the worker is gone"))


class Crew:
    """All other workers; none with `gateway.workers: 1`, and in a worker that is not the first."""

    def __init__(self, config: Config, data: Path, metrics: Metrics, fleet: Fleet) -> None:
        self._config = config
        self._metrics = metrics
        self._fleet = fleet
        self._first_keys = False
        self.open = config.gateway.workers == 1
        """Whether each worker has found an engine once; before, none says that it is ready: the next request may be another's."""
        restarted: Callable[[str], None] = lambda name: metrics.worker_restarts.labels(name).inc()  # noqa: E731
        self._tasks: list[asyncio.Task[None]] = []
        silence = config.gateway.worker_silence_seconds
        self._others = [Worker(n, data, silence, self._order, restarted) for n in range(1, config.gateway.workers)]

    async def keep(self, port: int, first_keys: bool, listening: Callable[[], None]) -> None:
        """Runs them for ever on data port `port`; calls `listening` once all listen. RatchetError: one never does."""
        config = self._config
        self._config = config.model_copy(update={"gateway": config.gateway.model_copy(update={"port": port, "workers": 1})})
        self._first_keys = first_keys
        self._tasks = [asyncio.create_task(part) for part in (self._told(listening), *(worker.keep() for worker in self._others))]
        await asyncio.gather(*self._tasks)

    async def text(self) -> bytes:
        """The metrics of all workers, in Prometheus' text format."""
        await asyncio.gather(*(worker.metrics() for worker in self._others))
        # Taken at one moment, so that what a worker counted is never there twice, nor missing, when it has just died.
        others = [(worker.name, worker.past, worker.last) for worker in self._others]
        return await asyncio.to_thread(self._text, others)

    async def load(self) -> dict[str, tuple[int, float]]:
        """Requests and tokens that the others have at each engine, by its name."""
        total: dict[str, tuple[int, float]] = {}
        for answer in await asyncio.gather(*(worker.ask("load") for worker in self._others)):
            told = msgspec.msgpack.decode(answer, type=dict[str, tuple[int, float]]) if answer else {}
            for name, (requests, tokens) in told.items():
                before = total.get(name, (0, 0))
                total[name] = before[0] + requests, before[1] + tokens
        return total

    async def forget(self, key_id: str) -> None:
        """A key was revoked: once this returns, no worker that answers knows it any more."""
        await asyncio.gather(*(worker.ask("forget", key_id) for worker in self._others))

    async def stop(self) -> None:
        """Lets them drain, each as long as this one may; kills what is left."""
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

    def _order(self) -> Order:
        return Order(self._config.model_dump(mode="json"), self._first_keys, self.open)

    async def _told(self, listening: Callable[[], None]) -> None:
        for worker in self._others:
            await worker.listening.wait()
        listening()
        while not self.open:
            found = await asyncio.gather(*(worker.ask("ready") for worker in self._others))
            self.open = self._fleet.ready and all(found)
            if not self.open:
                await asyncio.sleep(LOOK_SECONDS)
        await asyncio.gather(*(worker.ask("open") for worker in self._others))
        await asyncio.get_running_loop().create_future()  # for ever, also with no other worker

    def _text(self, others: list[tuple[str, sums.Families, bytes]]) -> bytes:
        if not others:
            return self._metrics.text()
        told = [(FIRST, sums.collected(self._metrics.registry))]
        for name, past, last in others:
            told += [(name, past), (name, sums.unpacked(last))]
        return sums.text(sums.merged(told))


def _lasting(past: sums.Families, last: bytes) -> sums.Families:
    return sums.lasting(past, sums.unpacked(last))
