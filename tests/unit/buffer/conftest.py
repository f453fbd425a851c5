from __future__ import annotations

import pytest

from ratchet.buffer import Store
from tests.support.stores import BASE, POLICY


@pytest.fixture
async def store(empty_store: Store) -> Store:
    """An open store that knows the test policy."""
    await empty_store.registry.ensure(POLICY, BASE)
    return empty_store
