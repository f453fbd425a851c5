"""Start an engine, keep it running, and say in the store what it is up to.

One life: launch -> it generates -> adapters restored -> `ready` -> watched until it dies, hangs, or we are told to stop.
Between lives it is `down` and waits longer each time. An engine that takes adapters only at its start begins a new life at
once when the registry wants one that it lacks; its running requests are cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Literal

from engines import EngineControl, connect, guard, launch
from engines.reconcile import Wanted, reconcile
from engines.restart import NeedsRestart, StartAdapters
from ratchet import process
from ratchet.backoff import Backoff
from ratchet.buffer import Store
from ratchet.clock import monotonic
from ratchet.config import Config, EngineConfig
from ratchet.errors import EngineError, EngineUnavailable, StoreError
from ratchet.models import resolve
from ratchet.tasks import end
from ratchet.types import EngineRecord

log = logging.getLogger(__name__)

START_SECONDS = 900.0
"""A big model on a slow disk; past it the start has failed."""
LISTEN_POLL_SECONDS = 0.25
WATCH_SECONDS = 2.0
PROBE_SECONDS = 30.0
"""Between two real generations of a running engine."""
MISSES = 3
"""Failed looks in a row after which a running engine counts as hung."""
GRACE_SECONDS = 8.0
"""What SIGTERM gives the process tree before SIGKILL; all is to be gone within 15 s."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds between two lives of an engine, doubling."""
STEADY_SECONDS = 120.0
"""After a life as long as this the next pause is the first again."""
State = Literal["starting", "ready", "down", "stopped"]


class Supervisor:
    """One engine of the configuration."""

    def __init__(self, config: Config, engine: EngineConfig, data: Path, store: Store) -> None:
        self._engine = engine
        self._model = config.models[engine.model].path
        self._data = data
        self._store = store
        self._wanted = Wanted(config, data, engine.model, store)
        slots = engine.launch.max_num_seqs if engine.launch is not None else 0
        restarts = engine.launch is not None and engine.launch.brings == "restart" and engine.launch.takes_adapters
        self._start_adapters = StartAdapters(self._wanted) if restarts else None
        self.record = EngineRecord(
            engine.name, engine.kind, engine.model, "", engine.model, launched=True, state="starting", slots=slots, weight=engine.weight
        )
        self._unsaid = False

    async def run(self, stop: asyncio.Event) -> None:
        """Returns once `stop` is set and the process tree is gone. ConfigError if it cannot be launched at all."""
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while not stop.is_set():
            began = monotonic()
            try:
                await self._live(stop)
            except NeedsRestart as error:
                log.info("engine %s is restarted for %s", self._engine.name, error)
                self.record.restarts += 1
                continue
            except EngineError as error:
                log.error("engine %s: %s", self._engine.name, error)
            if stop.is_set():
                break
            if monotonic() - began > STEADY_SECONDS:
                backoff.reset()
            self.record.restarts += 1
            await self._say("down")
            await _wait(stop, backoff.pause())
        await self._say("stopped")

    async def _live(self, stop: asyncio.Event) -> None:
        """One life; EngineError says why it ended, unless `stop` was set."""
        model, adapters = await asyncio.to_thread(resolve, self._model), await self._adapters(stop)
        if stop.is_set():
            return
        port, machine = process.free_port(), launch.this_machine()
        planned = launch.build(self._engine, model, port, machine=machine, environ=os.environ, adapters=adapters)
        self.record.url = planned.url
        await self._say("starting")
        logfile = self._data / "logs" / f"engine-{self._engine.name}.log"
        child = await process.spawn(planned.argv, env=planned.env, log=logfile, name=self._engine.name)
        engine = connect(self.record)
        leash = await _guard(child.pid)
        exited, stopped = asyncio.create_task(child.wait()), asyncio.create_task(stop.wait())
        served = asyncio.create_task(self._serve(engine))
        tasks = (exited, stopped, served)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if exited.done() and not stop.is_set():
                raise EngineUnavailable(f"exited with status {child.returncode}; see {logfile}")
            if served.done():
                served.result()
        except EngineError:
            if self._start_adapters is not None and self.record.state != "ready":
                self._start_adapters.start_failed()
            raise
        finally:
            await end(tasks)
            await process.kill_tree(child.pid, GRACE_SECONDS)
            await child.wait()
            await _let_go(leash)  # what an engine that died by itself left behind goes too
            await engine.close()

    async def _serve(self, engine: EngineControl) -> None:
        """From its first breath on; ends only by an EngineError."""
        self._wanted.forget()
        await self._listening(engine)
        self.record.pools = not await engine.health()
        await self._restored(engine)
        await self._say("ready")
        misses, probed = 0, monotonic()
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                if monotonic() - probed > PROBE_SECONDS:
                    await engine.health()
                    probed = monotonic()
                await self._restore(engine)
                misses = 0
            except EngineError as error:
                misses += 1
                log.warning("engine %s: look %d of %d failed: %s", self._engine.name, misses, MISSES, error)
                if misses == MISSES:
                    raise
            if self._unsaid:
                await self._say("ready")

    async def _listening(self, engine: EngineControl) -> None:
        deadline = monotonic() + START_SECONDS
        while True:
            try:
                await engine.models()
                return
            except EngineError:
                if monotonic() > deadline:
                    raise
            await asyncio.sleep(LISTEN_POLL_SECONDS)

    async def _restored(self, engine: EngineControl) -> None:
        while True:
            if await self._restore(engine):
                return
            await asyncio.sleep(WATCH_SECONDS)

    async def _restore(self, engine: EngineControl) -> bool:
        """Whether the engine holds what the registry retains, if it takes adapters; False if the store does not say."""
        if self.record.pools:
            return True
        try:
            if self._start_adapters is not None:
                await self._compare(engine, self._start_adapters)
                return True
            wanted = await self._wanted.retained()
        except StoreError as error:
            log.warning("engine %s: adapters unknown: %s", self._engine.name, error)
            return False
        await reconcile(engine, wanted, unload=False)  # unloading is the learner's, who knows what is in flight
        return True

    async def _adapters(self, stop: asyncio.Event) -> dict[str, Path]:
        """The adapters to start the engine with, once the store can say; none where they are loaded later."""
        while self._start_adapters is not None and not stop.is_set():
            try:
                adapters = await self._start_adapters.choose()
            except StoreError as error:
                log.warning("engine %s: adapters unknown: %s", self._engine.name, error)
                await _wait(stop, WATCH_SECONDS)
            else:
                self.record.refused = self._start_adapters.refused
                return adapters
        return {}

    async def _compare(self, engine: EngineControl, adapters: StartAdapters) -> None:
        await adapters.check(await engine.models())
        if self.record.refused != adapters.refused:
            self.record.refused, self._unsaid = adapters.refused, True

    async def _say(self, state: State) -> None:
        self.record.state = state
        try:
            await self._store.fleet.put(self.record)
            self._unsaid = False
        except StoreError as error:
            self._unsaid = True
            log.warning("engine %s is %s, which the store did not take: %s", self._engine.name, state, error)


async def _guard(group: int) -> asyncio.subprocess.Process:
    """Watches over the process group `group`, in a session of its own that our end does not reach."""
    argv = [sys.executable, "-I", "-S", guard.__file__, str(group)]
    return await asyncio.create_subprocess_exec(*argv, stdin=PIPE, start_new_session=True)


async def _let_go(leash: asyncio.subprocess.Process) -> None:
    if leash.stdin is not None:
        leash.stdin.close()
    await leash.wait()


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
