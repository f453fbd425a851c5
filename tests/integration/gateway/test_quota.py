"""gateway.access.quota: admissions on a real store, and what happens when that does not answer."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.access.quota import UNLIMITED, Quota
from gateway.errors import ApiError
from gateway.telemetry.metrics import Metrics
from ratchet.buffer import EmbeddedServer, Store
from ratchet.config import QuotaConfig, StoreConfig
from ratchet.types import KeyRecord
from tests.support.gateway_process import until


@pytest.fixture
async def quota(store: Store) -> AsyncIterator[Quota]:
    made = Quota(store.quotas, Metrics(), QuotaConfig(wait_ms=1000))
    yield made
    await made.close()


def key(**fields: Any) -> KeyRecord:
    return KeyRecord("key_a", "acme", ["infer"], 1.0, **fields)


def sample(quota: Quota, name: str, **labels: str) -> float | None:
    return quota._metrics.registry.get_sample_value(name, labels)


async def test_a_key_without_quotas_asks_nobody(quota: Quota, server: EmbeddedServer) -> None:
    await server.stop()
    admission = await quota.admit(key(), "support", 10**9)
    assert admission is UNLIMITED
    await admission.settle(5)
    assert [*admission.headers, *await quota.count(key(tpm=1, concurrency=1))] == []
    assert sample(quota, "ratchet_quota_unchecked_total") == 0


async def test_an_admission_has_openais_headers_and_a_refusal_its_error(quota: Quota) -> None:
    caller = key(rpm=2, tpm=600)
    admission = await quota.admit(caller, "support", 100)
    assert admission.counts_tokens
    sent = {name.decode(): value.decode() for name, value in admission.headers}
    assert sent == {
        "x-ratelimit-limit-requests": "2",
        "x-ratelimit-remaining-requests": "1",
        "x-ratelimit-reset-requests": "30s",
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-tokens": "500",
        "x-ratelimit-reset-tokens": "10s",
    }
    with pytest.raises(ApiError) as refused:
        await quota.admit(caller, "support", 599)
    assert (refused.value.status, refused.value.code, refused.value.retry_after) == (429, "rate_limit_exceeded", pytest.approx(10, abs=0.5))
    assert b'"type":"tokens"' in refused.value.body
    assert {name for name, _ in refused.value.headers} == {name.encode() for name in sent} | {b"retry-after"}
    await quota.count(caller)
    with pytest.raises(ApiError) as refused:
        await quota.count(caller)
    assert b'"type":"requests"' in refused.value.body
    assert [sample(quota, "ratchet_quota_refused_total", bound=bound) for bound in ("tokens", "requests")] == [1, 1]


async def test_a_request_that_is_over_makes_room_at_once_and_only_once(quota: Quota) -> None:
    caller = key(tpm=100, concurrency=1)
    for _ in range(20):
        admission = await quota.admit(caller, "support", 50)
        with pytest.raises(ApiError, match="1 requests at a time"):
            await quota.admit(caller, "support", 1)
        await admission.settle(0)
        await admission.settle(100)
    admission = await quota.admit(caller, "support", 100)
    await admission.settle(None)
    with pytest.raises(ApiError, match="100 tokens a minute"):
        await quota.admit(caller, "support", 100)


async def test_a_client_that_goes_while_it_is_asked_for_leaves_no_lease(quota: Quota, store: Store) -> None:
    caller = key(concurrency=1)
    asking = asyncio.create_task(quota.admit(caller, "support", 0))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking

    async def free() -> bool:
        return not (await store.quotas.ask(caller, "next", tokens=0, leased=True, lease_seconds=30)).refused

    await until(free, "the lease is gone")


async def test_a_store_that_is_away_lets_requests_through_and_is_counted(quota: Quota, server: EmbeddedServer, tmp_path: Path) -> None:
    caller = key(rpm=1, tpm=1, concurrency=1)
    await server.stop()
    for _ in range(50):
        admission = await quota.admit(caller, "support", 5)
        assert admission.headers == ()
        await admission.settle(5)
    assert sample(quota, "ratchet_quota_unchecked_total") == 50
    back = await EmbeddedServer.start(tmp_path, StoreConfig())

    async def counted() -> bool:
        return bool((await quota.admit(caller, "support", 1)).headers)

    try:
        await until(counted, "quotas hold again")
        with pytest.raises(ApiError):
            await quota.admit(caller, "support", 1)
    finally:
        await back.stop()


async def test_a_store_that_hangs_delays_one_request_and_counts_it_once_it_is_back(store: Store, server: EmbeddedServer) -> None:
    quota = Quota(store.quotas, Metrics(), QuotaConfig(wait_ms=50))
    caller = key(concurrency=1, tpm=100)
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(2):
            admissions = [await quota.admit(caller, "support", 100) for _ in range(100)]
            for admission in admissions:
                await admission.settle(0)
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    await asyncio.wait_for(asyncio.gather(*quota._tasks), 10)
    standing = await store.quotas.ask(caller, "next", tokens=100, leased=True, lease_seconds=30)
    assert not standing.refused
    await quota.close()


@pytest.mark.slow
async def test_what_runs_longer_than_a_lease_keeps_it(store: Store) -> None:
    quota = Quota(store.quotas, Metrics(), QuotaConfig(wait_ms=1000, lease_seconds=1))
    renewing = asyncio.create_task(quota.run())
    caller = key(concurrency=1)
    admission = await quota.admit(caller, "support", 0)
    renewed: set[float] = set()

    async def thrice() -> bool:
        [[_, till]] = [await store.quotas._link.do("ZRANGE", "r:ql:key_a", 0, -1, "WITHSCORES")]
        renewed.add(float(till))
        return len(renewed) > 4  # each is a third of the lease's life later

    await until(thrice, "the lease was renewed past its life")
    with pytest.raises(ApiError):
        await quota.admit(caller, "support", 0)
    await admission.settle(0)
    renewing.cancel()
    await quota.close()


async def test_an_estimate_counts_the_prompt_and_every_choice(quota: Quota) -> None:
    assert quota.estimate(1001, 100) == 251 + 100
    assert quota.estimate(0, None, 2) == 1024
    assert quota.estimate(4, 2**31 - 1, 128) == 2**31
