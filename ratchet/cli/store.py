"""Keys created, listed and revoked in the store itself, for the time when no gateway runs."""

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
    """The same calls as Admin's for keys, made in the store. StoreError if it is away or unfit."""

    def __init__(self, config: StoreConfig, data: Path) -> None:
        self._config = config
        self._data = data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Nothing stays open between calls."""

    def create_key(self, spec: KeySpec) -> dict[str, Any]:
        """Create a key; return its record and, as `key`, the key itself."""
        self._data.mkdir(parents=True, exist_ok=True, mode=0o700)
        key, stored, record = spec.issue()
        self._run(lambda store: store.keys.put(stored, record))
        return {**msgspec.to_builtins(record), "key": key}

    def keys(self) -> list[dict[str, Any]]:
        """Return all keys, the oldest first."""
        found: list[dict[str, Any]] = msgspec.to_builtins(self._run(lambda store: store.keys.all()))
        return found

    def revoke_key(self, item: str) -> None:
        """Revoke a key by its id. RatchetError if there is none."""
        if not self._run(lambda store: store.keys.revoke(item)):
            raise RatchetError("There is no key of that id.")

    def _run(self, work: Callable[[Store], Awaitable[T]]) -> T:
        async def done() -> T:
            async with opened(self._config, self._data) as store:
                return await work(store)

        return asyncio.run(done())


@asynccontextmanager
async def opened(config: StoreConfig, data: Path) -> AsyncIterator[Store]:
    """Open the store; an embedded one that does not run is started for as long as the block runs. StoreError if that fails."""
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
