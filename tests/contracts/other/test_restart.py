"""An engine that takes adapters only at its start: its supervisor restarts it for them, and the learner waits for that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engines import connect
from engines.supervision.supervisor import Supervisor
from learner.publication import publish as publishing
from learner.publication.replicas import Replicas
from ratchet.buffer import Store
from ratchet.config import Config, EngineConfig
from ratchet.errors import EngineUnavailable, GateRefused
from ratchet.types import EngineRecord, PolicyVersionRecord
from tests.support.fake_engine import BASE, until
from tests.support.registered_adapters import commit, publish
from tests.support.stores import embedded_store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with embedded_store(tmp_path) as found:
        yield found


@pytest.fixture(autouse=True)
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks and pauses that are as short as a test is."""
    monkeypatch.setattr("engines.supervision.supervisor.WATCH_SECONDS", 0.1)
    monkeypatch.setattr("engines.supervision.supervisor.FIRST_PAUSE", 0.05)
    monkeypatch.setattr("learner.publication.publish.POLL_SECONDS", 0.05)


def configured(**launch: Any) -> Config:
    engine = {"name": "local", "kind": "other", "model": BASE, "launch": {"max_loras": 6, **launch}}
    return Config.model_validate({"models": {BASE: {"path": "smollm2"}}, "engines": [engine], "policies": {"support": {"base": BASE}}})


@asynccontextmanager
async def supervised(store: Store, data: Path, **launch: Any) -> AsyncIterator[None]:
    config = configured(**launch)
    supervisor, stop = Supervisor(config, config.engines[0], data, store), asyncio.Event()
    task = asyncio.create_task(supervisor.run(stop))
    try:
        yield
    finally:
        stop.set()
        await task


@asynccontextmanager
async def replicas(store: Store, data: Path) -> AsyncIterator[Replicas]:
    found = Replicas(store, data)
    yield found
    await found.close()


async def ready(store: Store, *, restarts: int = 0) -> EngineRecord:
    async def there() -> bool:
        return any(record.state == "ready" and record.restarts >= restarts for record in await store.fleet.engines())

    await until(there)
    return (await store.fleet.engines())[0]


async def listed(record: EngineRecord) -> list[str]:
    engine = connect(record)
    try:
        return await engine.models()
    finally:
        await engine.close()


async def test_it_is_started_with_what_is_retained_and_restarted_with_a_candidate(store: Store, tmp_path: Path) -> None:
    await publish(store, tmp_path, "support", 1)
    async with supervised(store, tmp_path), replicas(store, tmp_path) as found:
        first = await ready(store)
        assert await listed(first) == [BASE, "support@1"]
        version = await commit(store, tmp_path, "support", 2)
        [(engine, seconds)] = await publishing.bring(await found.some(BASE), found, version)
        assert (engine.record.restarts, engine.record.refused) == (1, [])
        assert seconds > 0 and engine.record.url != first.url
        assert set(await engine.models()) == {BASE, "support@1", "support@2"}
        samples = [await engine.generate(name, [1, 2], max_tokens=3) for name in ("support@1", "support@2")]
        assert samples[0][0].logprobs != samples[1][0].logprobs
        await store.registry.publish("support", 2, expect_live=1, verdict={"passed": True})
        assert [(engine.record.restarts, took < seconds) for engine, took in await publishing.bring([engine], found, version)] == [
            (1, True)
        ]


async def test_a_candidate_that_it_cannot_be_started_with_is_refused_and_the_versions_before_it_serve_on(
    store: Store, tmp_path: Path
) -> None:
    await publish(store, tmp_path, "support", 1)
    async with supervised(store, tmp_path, extra=["--dies-of", "support@2"]), replicas(store, tmp_path) as found:
        await ready(store)
        version = await commit(store, tmp_path, "support", 2)
        with pytest.raises(GateRefused, match="could not be started with the adapter") as caught:
            await publishing.bring(await found.some(BASE), found, version)
        assert caught.value.gate == "load"
        record = await ready(store, restarts=2)
        assert record.refused == ["support@2"]
        assert await listed(record) == [BASE, "support@1"]
        await publishing.unload(await found.some(BASE), "support", 2)
        await store.registry.refuse("support", 2, gate="load", verdict={"passed": False})
        await commit(store, tmp_path, "support", 3)
        assert set(await listed(await ready(store, restarts=record.restarts + 1))) == {BASE, "support@1", "support@3"}


async def test_a_version_that_is_no_longer_retained_stays_until_the_next_start(store: Store, tmp_path: Path) -> None:
    await publish(store, tmp_path, "support", 1)
    async with supervised(store, tmp_path), replicas(store, tmp_path) as found:
        await ready(store)
        retirement = publishing.Retirement("support", BASE, 0, store=store, replicas=found)
        assert not await retirement.once()
        assert await listed(await ready(store)) == [BASE, "support@1"]


async def test_a_replica_that_does_not_come_back_says_nothing_of_the_candidate(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("learner.publication.publish.RESTART_SECONDS", 0.3)
    await store.fleet.put(EngineRecord("local", "other", BASE, "http://127.0.0.1:9", BASE, launched=True))
    version = PolicyVersionRecord("support", 2, "candidate", 0.0)
    async with replicas(store, tmp_path) as found:
        with pytest.raises(EngineUnavailable, match="was not restarted with support@2"):
            await publishing.bring(await found.some(BASE), found, version)


def test_an_engine_given_by_url_cannot_hold_a_policy_and_one_without_policies_may_be_there() -> None:
    config = configured()
    given = EngineConfig(name="far", kind="other", model=BASE, url="http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"engines\.far: other takes adapters only when it is started, so that Ratchet has to launch it"):
        config.check_brings(given)
    config.model_copy(update={"policies": {}}).check_brings(given)


def test_an_engine_that_takes_merged_weights_cannot_hold_a_policy_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured()
    monkeypatch.setattr("tests.contracts.other.kind.OtherLaunch.brings", "weights")
    with pytest.raises(ValueError, match="merged weights, which is not built yet"):
        config.check_brings(config.engines[0])
