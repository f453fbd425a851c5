"""gateway.relay: what can be told without an engine."""

from __future__ import annotations

import asyncio

import pytest

from gateway.http import ClientGone
from gateway.relay import taken


async def test_a_client_that_does_not_take_its_last_bytes_is_given_up() -> None:
    reads = asyncio.Event()
    with pytest.raises(ClientGone):
        await taken(_read_by(reads), 0.01)
    reads.set()
    await taken(_read_by(reads), 0.01)


async def _read_by(reads: asyncio.Event) -> None:
    await reads.wait()
