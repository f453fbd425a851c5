"""Quotas over two gateways, one of which is killed: exact before, and no room is lost after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from ratchet.clock import monotonic
from tests.support.fault_figures import FULL
from tests.support.gateway_process import POLICY, Bench, bench, end, until

KILLS = 10 if FULL else 1
LEASE_SECONDS = 1.0
SLACK_SECONDS = 5.0
"""What a busy machine may add."""
LONG = "say:" + "x" * 200


@asynccontextmanager
async def pair(data: Path) -> AsyncIterator[tuple[Bench, Bench]]:
    """Two gateways on one store and one slow engine."""
    async with bench(data / "a", quota={"wait_ms": 5000, "lease_seconds": LEASE_SECONDS}) as one:
        (data / "b").mkdir()
        other = Bench(data / "b", one.server, one.store, one.fakes, {**one.config, "store": {"url": one.server.url}})
        try:
            await other.start()
            yield one, other
        finally:
            await other.http.aclose()
            if other.process is not None:
                await end(other.process)


async def make(made: Bench, **quota: int) -> tuple[dict[str, str], str]:
    """The headers of a fresh key, and its id."""
    answer = (await made.call("POST", "/admin/keys", {"tenant": "acme", "scopes": ["infer"], **quota}, key="operator")).json()
    return {"authorization": f"Bearer {answer['key']}"}, answer["id"]


async def ask(made: Bench, headers: dict[str, str], text: str = "say:hi", **fields: Any) -> httpx.Response:
    return await made.chat(text, headers=headers, **fields)


async def hold(made: Bench, headers: dict[str, str], begun: asyncio.Event) -> None:
    """Reads a long answer until its gateway dies."""
    body = {"model": POLICY, "messages": [{"role": "user", "content": LONG}], "stream": True}
    try:
        async with made.http.stream("POST", made.url + "/v1/chat/completions", json=body, headers=headers) as answer:
            async for _ in answer.aiter_bytes():
                begun.set()
    except httpx.TransportError:
        return


async def burst(gateways: tuple[Bench, Bench], headers: dict[str, str]) -> int:
    """How many of 40 requests at once pass."""
    answers = await asyncio.gather(*(ask(made, headers) for _ in range(20) for made in gateways))
    assert {answer.status_code for answer in answers} <= {200, 429}
    return sum(answer.status_code == 200 for answer in answers)


async def leases(made: Bench, key_id: str) -> list[float]:
    """When they end, Unix milliseconds."""
    found = await made.store.quotas._link.do("ZRANGE", f"r:ql:{key_id}", 0, -1, "WITHSCORES")
    return [float(end) for end in found[1::2]]


async def outlived(made: Bench, key_id: str) -> None:
    """Returns once the running requests' leases were kept past the life of a single one."""
    first = max(await leases(made, key_id))

    async def kept() -> bool:
        return min(await leases(made, key_id)) > first + LEASE_SECONDS * 1000

    await until(kept, "leases are renewed")


@pytest.mark.slow
async def test_a_killed_gateways_requests_free_their_room_and_buckets_stay_exact(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    async with pair(tmp_path) as (one, other):
        bound, _ = await make(one, rpm=10)
        began = monotonic()
        passed = await burst((one, other), bound)
        assert 10 <= passed <= 10 + (monotonic() - began) / 6

        headers, key_id = await make(one, concurrency=2, tpm=10**6)
        for _ in range(KILLS):
            await one.fakes["fake-0"].faults(token_ms=50)
            begun = [asyncio.Event(), asyncio.Event()]
            holding = [asyncio.create_task(hold(one, headers, event)) for event in begun]
            await asyncio.wait_for(asyncio.gather(*(event.wait() for event in begun)), 20)
            for made in (one, other):
                assert (await ask(made, headers)).status_code == 429
            await outlived(one, key_id)
            assert (await ask(other, headers)).status_code == 429
            assert one.process is not None
            await end(one.process)
            killed = monotonic()
            await asyncio.gather(*holding)
            await one.fakes["fake-0"].faults()

            async def free() -> bool:
                return (await ask(other, headers)).status_code == 200

            await until(free, "the killed gateway's room is free")
            assert monotonic() - killed < LEASE_SECONDS + SLACK_SECONDS
            await one.start()
        passed += await burst((one, other), bound)
        assert passed <= 10 + (monotonic() - began) / 6
