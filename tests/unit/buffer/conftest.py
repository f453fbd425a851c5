"""One real embedded server a test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ratchet.buffer import Store
from tests.stores import BASE, POLICY, embedded_store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """An open store that knows the test policy; afterwards its ledger must balance."""
    async with embedded_store(tmp_path) as opened:
        await opened.registry.ensure(POLICY, BASE)
        yield opened
        assert (await opened.feedback.ledger()).balances
