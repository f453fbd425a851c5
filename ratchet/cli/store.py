"""What the CLI does in the store itself, where no gateway runs that could do it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from ratchet.buffer import EmbeddedServer, Store, open_store
from ratchet.buffer.store import EMBEDDED
from ratchet.config import StoreConfig
from ratchet.errors import RatchetError, StoreUnavailable
from ratchet.keys import KeySpec

T = TypeVar("T")


class StoreKeys:
    """Admin's calls about keys, in the store. StoreError, one line: it is away or unfit."""

    def __init__(self, config: StoreConfig, data: Path) -> None:
        self._config = config
        self._data = data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Nothing stays open between calls."""

    def create_key(self, spec: KeySpec) -> dict[str, Any]:
        """Makes a key: its record and, as `key`, the key itself."""
        self._data.mkdir(parents=True, exist_ok=True, mode=0o700)
        key, stored, record = spec.issue()
        self._run(lambda store: store.keys.put(stored, record))
        return {**msgspec.to_builtins(record), "key": key}

    def keys(self) -> list[dict[str, Any]]:
        """All keys, the oldest first."""
        found: list[dict[str, Any]] = msgspec.to_builtins(self._run(lambda store: store.keys.all()))
        return found

    def revoke_key(self, item: str) -> None:
        """Ends the key of that id. RatchetError: there is none."""
        if not self._run(lambda store: store.keys.revoke(item)):
            raise RatchetError("There is no key of that id.")

    def _run(self, work: Callable[[Store], Awaitable[T]]) -> T:
        async def done() -> T:
            async with opened(self._config, self._data) as store:
                return await work(store)

        return asyncio.run(done())


@asynccontextmanager
async def opened(config: StoreConfig, data: Path) -> AsyncIterator[Store]:
    """The store; an embedded one that does not run is started meanwhile. StoreError."""
    server: EmbeddedServer | None = None
    try:
        store = await open_store(config.url, config, data=data)
    except StoreUnavailable:
        if config.url != EMBEDDED:
            raise
        server = await EmbeddedServer.start(data, config)
        store = None
    try:
        store = store or await open_store(config.url, config, data=data)
        try:
            yield store
        finally:
            await store.close()
    finally:
        if server is not None:
            await server.stop()
