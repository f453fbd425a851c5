"""Start an engine, keep it running, and report its state in the store.

One life of an engine: launched, it generates, its adapters are restored, `ready`, then watched until it dies, hangs, or is to
stop. Between lives it is `down`, each time for longer. An engine that takes adapters only at its start begins a new life at once
when the registry wants one that it lacks; its running requests are cut off.
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

from engines import EngineControl, connect, launch
from engines.reconcile import Wanted, reconcile
from engines.supervision import guard
from engines.supervision.restart import NeedsRestart, StartAdapters
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
"""Seconds after which a start has failed; a big model on a slow disk takes long."""
LISTEN_POLL_SECONDS = 0.25
WATCH_SECONDS = 2.0
"""Seconds between two checks of a running engine."""
PROBE_SECONDS = 30.0
"""Seconds between two generations that a running engine is asked for."""
MAX_FAILED_CHECKS = 3
"""Failed checks in a row after which a running engine counts as hung."""
GRACE_SECONDS = 8.0
"""Seconds between SIGTERM and SIGKILL of the process tree, which must have ended within 15 s."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds between two lives of an engine, doubling."""
STEADY_SECONDS = 120.0
"""After a life as long as this the next pause is the first again."""
State = Literal["starting", "ready", "down", "stopped"]


class Supervisor:
    """Supervises one engine of the configuration."""

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
        self._unreported = False

    async def run(self, stop: asyncio.Event) -> None:
        """Run the engine until `stop` is set and its process tree has ended. ConfigError if it cannot be launched at all."""
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
            await self._report("down")
            await _wait(stop, backoff.pause())
        await self._report("stopped")

    async def _live(self, stop: asyncio.Event) -> None:
        """Run the engine for one life. EngineError says why it ended, unless `stop` is set."""
        model, adapters = await asyncio.to_thread(resolve, self._model), await self._adapters(stop)
        if stop.is_set():
            return
        port, machine = process.free_port(), launch.this_machine()
        planned = launch.build(self._engine, model, port, machine=machine, environ=os.environ, adapters=adapters)
        self.record.url = planned.url
        await self._report("starting")
        logfile = self._data / "logs" / f"engine-{self._engine.name}.log"
        child = await process.spawn(planned.argv, env=planned.env, log=logfile, name=self._engine.name)
        engine = connect(self.record)
        guarding = await _guard(child.pid)
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
            await _release(guarding)  # this also kills what an engine that died by itself did not end
            await engine.close()

    async def _serve(self, engine: EngineControl) -> None:
        """Bring a fresh engine to `ready` and watch it. Ends only by an EngineError."""
        self._wanted.forget()
        await self._listening(engine)
        self.record.pools = not await engine.health()
        await self._restored(engine)
        await self._report("ready")
        failed, probed = 0, monotonic()
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                if monotonic() - probed > PROBE_SECONDS:
                    await engine.health()
                    probed = monotonic()
                await self._restore(engine)
                failed = 0
            except EngineError as error:
                failed += 1
                log.warning("engine %s: check %d of %d failed: %s", self._engine.name, failed, MAX_FAILED_CHECKS, error)
                if failed == MAX_FAILED_CHECKS:
                    raise
            if self._unreported:
                await self._report("ready")

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
        """Make the engine hold what the registry retains. False if the store is away; True at once if the engine takes no adapters."""
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
        await reconcile(engine, wanted, unload=False)  # the learner unloads, since it knows what is in flight
        return True

    async def _adapters(self, stop: asyncio.Event) -> dict[str, Path]:
        """Wait for the store and return the adapters to start the engine with; none where they are loaded later."""
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
            self.record.refused, self._unreported = adapters.refused, True

    async def _report(self, state: State) -> None:
        self.record.state = state
        try:
            await self._store.fleet.put(self.record)
            self._unreported = False
        except StoreError as error:
            self._unreported = True
            log.warning("engine %s is %s, which could not be reported: %s", self._engine.name, state, error)


async def _guard(group: int) -> asyncio.subprocess.Process:
    """Start the guard of a process group, in a session of its own that does not end with ours."""
    argv = [sys.executable, "-I", "-S", guard.__file__, str(group)]
    return await asyncio.create_subprocess_exec(*argv, stdin=PIPE, start_new_session=True)


async def _release(guarding: asyncio.subprocess.Process) -> None:
    """Make the guard kill its process group and end."""
    if guarding.stdin is not None:
        guarding.stdin.close()
    await guarding.wait()


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
