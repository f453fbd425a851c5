"""Start everything, watch it, and stop it."""

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
from ratchet.up import orphans, resolve
from ratchet.up.keys import load_or_create, register
from ratchet.up.machine import Machine
from ratchet.up.progress import Progress
from ratchet.up.ready_file import RUN_FILE, KeyPair, Running, write_private

POLL_SECONDS = 0.2


def up(config: Config, data: Path, *, ready_file: Path | None = None, rewards: Path | None = None) -> int:
    """Run everything until SIGINT or SIGTERM; return the exit status.

    `rewards` is a folder of reward functions, besides the installed packages. RatchetError if a part cannot be started or
    kept running.
    """
    die_with_parent()
    with _exclusive(data):
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
    """One run of `up`, from start to stop."""

    def __init__(self, config: Config, data: Path, rewards: Path, files: list[Path]) -> None:
        self.config = config
        self.data = data
        self.rewards = rewards
        self.files = files
        self.progress = Progress()
        self.machine: Machine | None = None

    async def serve(self) -> None:
        """Start everything, print where it serves, and run until cancelled. RatchetError if a part cannot be kept running."""
        with self.progress.step("model and ports"):
            config = await asyncio.to_thread(resolve.resolve, self.config)
        file = resolve.write(config, self.data)
        machine = self.machine = Machine(config, file, self.data, self.rewards, self.progress.say)
        with self.progress.step("store"):
            await machine.start_store()
            store = await machine.store()
        try:
            keys = load_or_create(self.data)
            await _prepare(store, keys, config)
            machine.start_parts()
            with self.progress.step(", ".join(part.name for part in machine.parts)):
                await machine.until(_ready(config, machine, store))
        finally:
            await store.close()
        machine.mark_ready()
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
        self.progress.say(f"gateway       {running.gateway}/v1")
        self.progress.say(f"admin         {running.admin}")
        self.progress.say(f"client key    {keys.client}")
        self.progress.say(f"operator key  {keys.operator}")
        self.progress.say(f"models        {', '.join([*config.policies, *config.models])}")
        self.progress.say(f"data, logs    {self.data}")
        for file in self.files:
            write_private(file, msgspec.json.encode(running))
        self.progress.say("ready; Ctrl-C stops")

    async def stop(self) -> None:
        if self.machine is not None:
            await self.machine.stop()
        await orphans.end(())

    def kill(self) -> None:
        if self.machine is not None:
            self.machine.kill_parts()


async def _until_signal(run: _Run) -> None:
    orphans.adopt()
    serving = asyncio.create_task(run.serve())
    stopped = asyncio.get_running_loop().create_future()

    def on_signal() -> None:
        if stopped.done():
            run.kill()
        else:
            stopped.set_result(None)
            run.progress.say("stopping; running requests may finish (again to stop at once)")

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    try:
        await asyncio.wait([serving, stopped], return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
    finally:
        await end([serving])
        await run.stop()


async def _prepare(store: Store, keys: KeyPair, config: Config) -> None:
    """Put the keys in the store and remove the engines that an earlier run launched and those that are no longer configured.

    Engines that an operator added at run time stay.
    """
    await register(store, keys)
    running = {engine.name for engine in config.engines if engine.url is not None}
    for record in await store.fleet.engines():
        if record.name not in running and not record.added:
            await store.fleet.remove(record.name)


async def _ready(config: Config, machine: Machine, store: Store) -> None:
    """Wait until the gateway reports that it can answer. RatchetError if an engine cannot be started."""
    url = f"{resolve.address(config.gateway.host, config.gateway.port)}/readyz"
    async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if (await client.get(url)).status_code == httpx.codes.OK:
                    return
            await machine.check_engines(store)
            await asyncio.sleep(POLL_SECONDS)


@contextlib.contextmanager
def _exclusive(data: Path) -> Iterator[None]:
    """Hold the lock of the data directory. RatchetError if another `ratchet up` holds it."""
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
