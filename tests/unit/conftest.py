"""One real store server for all unit tests that need no other; each test finds it empty."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from ratchet.buffer import EmbeddedServer, Store
from ratchet.config import StoreConfig
from tests.support.stores import emptied


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def store_data(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Path]:
    """The data directory of the server."""
    data = tmp_path_factory.mktemp("store")
    server = await EmbeddedServer.start(data, StoreConfig())
    yield data
    await server.stop()


@pytest.fixture
async def empty_store(store_data: Path, tmp_path: Path) -> AsyncIterator[Store]:
    """An open store with nothing in it, found under `tmp_path` too; afterwards its ledger must balance."""
    (tmp_path / "store").symlink_to(store_data / "store")
    async with emptied(store_data) as opened:
        yield opened
        assert (await opened.feedback.ledger()).balances
