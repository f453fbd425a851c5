"""Starts everything, watches it, and ends it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec

from ratchet.buffer import Store
from ratchet.config import Config
from ratchet.errors import RatchetError
from ratchet.process import die_with_parent
from ratchet.process.locks import locked
from ratchet.tasks import end
from ratchet.up import resolve, strays
from ratchet.up.keys import KeyPair, load_or_create, register, write_private
from ratchet.up.machine import Machine
from ratchet.up.progress import Progress

POLL_SECONDS = 0.2
RUN_FILE = "run.json"
"""In the data directory while `up` runs: the same content as the ready file, for the CLI."""


class Running(msgspec.Struct):
    """The ready file."""

    gateway: str
    admin: str
    keys: KeyPair
    pid: int


def up(config: Config, data: Path, *, ready_file: Path | None = None, rewards: Path | None = None) -> int:
    """Runs everything until SIGINT or SIGTERM; the exit status.

    `rewards` is where reward functions are found besides the installed packages. RatchetError, one line: it cannot start,
    or a part gave up.
    """
    die_with_parent()
    with _alone(data):
        if ready_file is not None and (ready_file.is_dir() or not ready_file.absolute().parent.is_dir()):
            raise RatchetError(f"--ready-file {ready_file}: give a file in a folder that exists")
        files = [data / RUN_FILE, *([ready_file.absolute()] if ready_file is not None else [])]
        _remove(files)
        try:
            asyncio.run(_until_signal(_Run(config, data, rewards or Path.cwd(), files)))
        finally:
            _remove(files)
    return 0


class _Run:
    """One life of `up`."""

    def __init__(self, config: Config, data: Path, rewards: Path, files: list[Path]) -> None:
        self.config = config
        self.data = data
        self.rewards = rewards
        self.files = files
        self.told = Progress()
        self.machine: Machine | None = None

    async def serve(self) -> None:
        """Starts all, says where, and returns only by an error."""
        with self.told.step("model and ports"):
            config = await asyncio.to_thread(resolve.resolve, self.config)
        file = resolve.write(config, self.data)
        machine = self.machine = Machine(config, file, self.data, self.rewards, self.told.say)
        with self.told.step("store"):
            await machine.start_store()
            store = await machine.store()
        try:
            keys = load_or_create(self.data)
            await _introduce(store, keys, config)
            machine.start_parts()
            with self.told.step(", ".join(part.name for part in machine.parts)):
                await machine.until(_ready(config, machine, store))
        finally:
            await store.close()
        machine.settled()
        self._announce(config, keys)
        await machine.until(asyncio.Event().wait())

    def _announce(self, config: Config, keys: KeyPair) -> None:
        gateway = config.gateway
        running = Running(
            gateway=resolve.address(gateway.host, gateway.port),
            admin=resolve.address(gateway.admin_host, gateway.admin_port),
            keys=keys,
            pid=os.getpid(),
        )
        self.told.say(f"gateway       {running.gateway}/v1")
        self.told.say(f"admin         {running.admin}")
        self.told.say(f"client key    {keys.client}")
        self.told.say(f"operator key  {keys.operator}")
        self.told.say(f"models        {', '.join([*config.policies, *config.models])}")
        self.told.say(f"data, logs    {self.data}")
        for file in self.files:
            write_private(file, msgspec.json.encode(running))
        self.told.say("ready; Ctrl-C stops")

    async def stop(self) -> None:
        if self.machine is not None:
            await self.machine.stop()
        await strays.end(())

    def hurry(self) -> None:
        if self.machine is not None:
            self.machine.hurry()


async def _until_signal(run: _Run) -> None:
    strays.adopt()
    serving = asyncio.create_task(run.serve())
    stopped = asyncio.get_running_loop().create_future()

    def on_signal() -> None:
        if stopped.done():
            run.hurry()
        else:
            stopped.set_result(None)
            run.told.say("stopping; running requests may finish (again to stop at once)")

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    try:
        await asyncio.wait([serving, stopped], return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
    finally:
        await end([serving])
        await run.stop()


async def _introduce(store: Store, keys: KeyPair, config: Config) -> None:
    """Keys into the store; out of it what an earlier run said of engines it launched, and engines no longer configured.

    Those that an operator added at run time stay.
    """
    await register(store, keys)
    running = {engine.name for engine in config.engines if engine.url is not None}
    for record in await store.fleet.engines():
        if record.name not in running and not record.added:
            await store.fleet.remove(record.name)


async def _ready(config: Config, machine: Machine, store: Store) -> None:
    """Returns once the gateway says that it can answer. RatchetError: an engine cannot be started."""
    url = f"{resolve.address(config.gateway.host, config.gateway.port)}/readyz"
    async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if (await client.get(url)).status_code == httpx.codes.OK:
                    return
            await machine.check_engines(store)
            await asyncio.sleep(POLL_SECONDS)


@contextlib.contextmanager
def _alone(data: Path) -> Iterator[None]:
    """Holds the data directory against another `up`."""
    busy = RatchetError(f"another `ratchet up` runs on {data}; stop it or give another --data")
    with contextlib.ExitStack() as held:
        try:
            data.mkdir(parents=True, exist_ok=True, mode=0o700)
            held.enter_context(locked(data / "lock", busy=busy))
        except OSError as error:
            raise RatchetError(f"{data} cannot be used ({error.strerror}); give another --data") from None
        yield


def _remove(files: list[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)
