"""A store of its own, for the parts of a gateway that may see it hang or fail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ratchet.buffer import EmbeddedServer, Store, open_store
from ratchet.config import StoreConfig


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    made = await EmbeddedServer.start(tmp_path, StoreConfig())
    yield made
    await made.stop()


@pytest.fixture
async def store(server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Store]:
    made = await open_store("embedded", StoreConfig(), data=tmp_path)
    yield made
    await made.close()
