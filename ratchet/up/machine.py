"""All parts of one machine: the store, the engines, the gateway, the learner."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import psutil

from ratchet.buffer import EmbeddedServer, Store, open_store
from ratchet.buffer.store import EMBEDDED
from ratchet.clock import monotonic
from ratchet.config import Config
from ratchet.errors import RatchetError, StoreError
from ratchet.process.supervision import CANNOT_START, EARLY_DEATHS, keep_running
from ratchet.tasks import end
from ratchet.up import orphans
from ratchet.up.parts import Part, command, environment, last_line, restart_message

STOP_SECONDS = 38.0
"""Seconds until the store is stopped; a few seconds later nothing is left (the contract says 45)."""
PROMPT_SECONDS = 8.0
"""Seconds that a part with nothing to drain gets to stop."""


class Machine:
    """The parts of a configuration on one data directory: started, waited for and stopped once. `say` gets a line for each restart."""

    def __init__(self, config: Config, config_file: Path, data: Path, rewards: Path, say: Callable[[str], None]) -> None:
        self.logs = data / "logs"
        self._config = config
        self._data = data
        self._say = say
        self._server: EmbeddedServer | None = None
        self._store_restarts = 0
        self._starting = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self.engines = [
            self._part(f"engine {e.name}", f"engine-{e.name}", command("engines", config_file, data, "--name", e.name))
            for e in config.engines
            if e.launch is not None
        ]
        self.gateway = self._part("gateway", "gateway", command("gateway", config_file, data))
        learners = [self._part("learner", "learner", command("learner", config_file, data, rewards=rewards))] if config.policies else []
        self.parts = [*self.engines, self.gateway, *learners]

    async def start_store(self) -> None:
        """Start the embedded store, if the configuration has it. StoreError if it cannot be started."""
        if self._config.store.url == EMBEDDED:
            self._server = await self._new_server()
            if self._server.moved is not None:
                self._say(self._server.moved)
            self._tasks.append(asyncio.create_task(self._keep_store(), name="store"))

    async def store(self) -> Store:
        """Open a connection to the store. StoreError if it is unfit or away."""
        return await open_store(self._config.store.url, self._config.store, data=self._data)

    def start_parts(self) -> None:
        """Start all other parts without waiting for any."""
        self._tasks += [asyncio.create_task(part.keep(), name=part.name) for part in self.parts]

    async def until(self, condition: Awaitable[object]) -> None:
        """Wait for `condition`. RatchetError if a part could not be kept running meanwhile."""
        waiting = asyncio.ensure_future(condition)
        try:
            await asyncio.wait([waiting, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in self._tasks:
                if task.done():
                    task.result()
            await waiting
        finally:
            waiting.cancel()

    def mark_ready(self) -> None:
        """Restart every part that ends from now on, however often it does."""
        for part in self.parts:
            part.was_ready = True

    async def check_engines(self, store: Store) -> None:
        """RatchetError if an engine has died several times and was never ready."""
        for record in await store.fleet.engines():
            part = next((p for p in self.engines if p.name == f"engine {record.name}"), None)
            if part is not None and record.restarts >= EARLY_DEATHS:
                raise RatchetError(f"{part.name} died {record.restarts} times while starting; {part.log} ends: {last_line(part.log)}")

    async def stop(self) -> None:
        """Stop everything: the gateway drains while the learner stops, then the engines, and the store last."""
        deadline = monotonic() + STOP_SECONDS
        await end(self._tasks)
        drain = min(self._config.gateway.drain_seconds + 2, STOP_SECONDS - 2)
        others = [p for p in self.parts if p not in (*self.engines, self.gateway)]
        await asyncio.gather(self.gateway.stop(drain), *(p.stop(PROMPT_SECONDS) for p in others))
        await _stop_all(self.engines, min(PROMPT_SECONDS, max(0.5, deadline - monotonic() - 2)))
        if self._server is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._server.stop(), max(1.0, deadline - monotonic()))
        await orphans.end(())

    def kill_parts(self) -> None:
        """Kill every part but the store, so that `stop` has little to wait for."""
        for part in self.parts:
            if part.pid is not None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    psutil.Process(part.pid).send_signal(signal.SIGKILL)

    def _part(self, name: str, log: str, argv: list[str]) -> Part:
        return Part(name, argv, self.logs / f"{log}.log", environment(), self._starting, self._died)

    async def _died(self, part: Part, status: int) -> None:
        if part.was_ready:
            self._say(restart_message(part.name, status, part.restarts, part.log))
        await self._sweep()

    async def _sweep(self) -> None:
        async with self._starting:
            known = {part.pid for part in self.parts}
            if self._server is not None:
                known.add(self._server.process.pid)
            await orphans.end({pid for pid in known if pid is not None})

    async def _new_server(self) -> EmbeddedServer:
        async with self._starting:
            return await EmbeddedServer.start(self._data, self._config.store)

    async def _keep_store(self) -> None:
        """Restart the store on the same socket each time it ends. Its clients reconnect."""
        await keep_running(self._store_life, was_ready=lambda: True, is_final=lambda _: False, ended=self._store_ended)

    async def _store_life(self) -> int:
        """Start a server if none runs, and return the exit status of the one that does."""
        if self._server is None:
            # What keeps a server from starting, such as a full disk, may pass: clients wait, and it is tried again.
            try:
                self._server = await self._new_server()
            except (StoreError, OSError):
                return CANNOT_START
        return await self._server.wait()

    async def _store_ended(self, status: int) -> None:
        self._store_restarts += 1
        self._say(restart_message("store", status, self._store_restarts, self.logs / "store.log"))
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop()


async def _stop_all(parts: Iterable[Part], grace: float) -> None:
    await asyncio.gather(*(part.stop(grace) for part in parts))
