"""Row 16 of reliability.md: the same feedback over and over, at once and after restarts, is counted once.

A tenth of the copies by default; RATCHET_FAULTS=full for the promise's count.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from ratchet.buffer import EmbeddedServer
from ratchet.config import StoreConfig
from tests.support.fault_figures import FULL, measured
from tests.support.gateway_process import Bench, bench, end, until

COPIES = 1000 if FULL else 100


async def send(made: Bench, body: dict[str, Any]) -> str | None:
    """The id the gateway gave it; None: it could not say."""
    try:
        answer = await made.call("POST", "/v1/feedback", body)
    except httpx.TransportError:
        return None
    assert answer.status_code in (202, 503), answer.text
    return str(answer.json()["id"]) if answer.status_code == 202 else None


async def copies(made: Bench, body: dict[str, Any]) -> set[str | None]:
    return set(await asyncio.gather(*(send(made, body) for _ in range(COPIES))))


@pytest.mark.slow
async def test_the_same_feedback_counts_once_at_once_and_over_kills(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        target = (await made.chat()).json()["id"]
        body = {"target": target, "value": 0.5, "idempotency_key": "once"}
        first = await copies(made, body)
        assert len(first) == 1

        flying = asyncio.create_task(copies(made, body))
        await until(lambda: accepted(made, '/v1/feedback",status="202'), "some of them arrived")
        assert made.process is not None
        await end(made.process)
        assert await flying <= {*first, None}
        await made.start()
        assert await copies(made, body) == first

        flying = asyncio.create_task(copies(made, body))
        made.server.process.kill()
        assert await flying <= {*first, None}
        await made.server.stop()
        restarted = await EmbeddedServer.start(tmp_path, StoreConfig())
        try:
            await after_the_restart(made, body, first)
        finally:
            await restarted.stop()


async def after_the_restart(made: Bench, body: dict[str, Any], first: set[str | None]) -> None:
    """Still once; and what is no copy but a revision is counted each time, while only the last stays."""

    async def back() -> bool:
        return await send(made, body) is not None

    await until(back, "the store is back")
    assert await copies(made, body) == first
    await counted(made, received=1, pending=1, superseded=0)
    revisions = [{**body, "value": i / COPIES, "idempotency_key": f"k{i}"} for i in range(COPIES)]
    given = await asyncio.gather(*(send(made, revision) for revision in revisions))
    assert len(set(given)) == COPIES
    await counted(made, received=1 + COPIES, pending=1, superseded=COPIES)
    measured("%d copies at once, and again over kills: counted once; %d revisions: each counted, the last stays", COPIES, COPIES)


async def accepted(made: Bench, what: str) -> bool:
    return what in (await made.call("GET", "/metrics", key="metrics")).text


async def counted(made: Bench, *, received: int, pending: int, superseded: int) -> None:
    ledger = await made.store.feedback.ledger()
    assert ledger.balances
    assert (ledger.received, ledger.pending, ledger.rejected.get("superseded", 0)) == (received, pending, superseded)
