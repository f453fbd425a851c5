"""A gateway that the tests of one file share (they change nothing for each other)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.gateway_process import Bench, bench


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    """One replica, every key."""
    async with bench(tmp_path_factory.mktemp("gateway")) as made:
        yield made
