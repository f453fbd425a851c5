"""Check that the store keeps what it acknowledges."""

from __future__ import annotations

import hashlib
import secrets
import signal
import tempfile
from collections.abc import Awaitable
from pathlib import Path

from ratchet.buffer import EmbeddedServer, open_store
from ratchet.buffer.store import EMBEDDED
from ratchet.clock import wall
from ratchet.config import StoreConfig
from ratchet.errors import StoreUnfit
from ratchet.types import KeyRecord

Check = Awaitable[str]
WRITES = 50


async def durable(config: StoreConfig) -> str:
    """Return a line about the store's durability. StoreError if it is unfit or away.

    For the embedded store a server is started on an empty folder, written to, and killed with SIGKILL. Any other server is
    asked for its settings, as at each start.
    """
    if config.url == EMBEDDED:
        return await _survives(config)
    store = await open_store(config.url, config)
    try:
        await store.ping()
    finally:
        await store.close()
    return "keeps an append-only file and evicts nothing"


async def _survives(config: StoreConfig) -> str:
    digests = [hashlib.sha256(secrets.token_bytes(32)).hexdigest() for _ in range(WRITES)]
    with tempfile.TemporaryDirectory(prefix="ratchet-doctor-") as folder:
        data = Path(folder)
        await _write_and_kill(data, config, digests)
        kept = await _read(data, config, digests)
    if kept != WRITES:
        raise StoreUnfit(f"{WRITES - kept} of {WRITES} acknowledged writes were lost when the server was killed")
    return f"{kept} of {WRITES} acknowledged writes survived kill -9 of an embedded server"


async def _write_and_kill(data: Path, config: StoreConfig, digests: list[str]) -> None:
    server = await EmbeddedServer.start(data, config)
    try:
        store = await open_store(config.url, config, data=data)
        for digest in digests:
            await store.keys.put(digest, KeyRecord(id=digest[:8], tenant="doctor", scopes=[], created=wall()))
        # Right after the last acknowledgement: nothing may remain to be written later.
        server.process.send_signal(signal.SIGKILL)
        await server.wait()
        await store.close()
    finally:
        await server.stop()


async def _read(data: Path, config: StoreConfig, digests: list[str]) -> int:
    server = await EmbeddedServer.start(data, config)
    try:
        store = await open_store(config.url, config, data=data)
        kept = [await store.keys.find(digest) for digest in digests]
        await store.close()
    finally:
        await server.stop()
    return sum(record is not None for record in kept)
