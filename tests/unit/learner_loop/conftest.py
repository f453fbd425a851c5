from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from ratchet.buffer import Store
from tests.support import tiny_model
from tests.support.learner_setup import tiny_engine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test-fast` leaves out what needs the small real engine."""
    for item in items:
        if item.path.parent == Path(__file__).parent and "url" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.save(tmp_path_factory.mktemp("models") / "tiny")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def url(model: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with tiny_engine(model, tmp_path_factory.mktemp("logs") / "tiny.log") as found:
        yield found


@pytest.fixture
def store(empty_store: Store) -> Store:
    return empty_store
