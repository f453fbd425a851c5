"""Following the live pointers: a real registry, and replicas whose lists the test writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.catalog import Catalog
from gateway.routing.adapter_cache import AdapterCache
from gateway.routing.fleet import Fleet
from gateway.routing.pointers import Pointers
from gateway.routing.replica import Replica
from gateway.telemetry.metrics import Metrics
from ratchet.buffer import Store
from ratchet.config import Config
from ratchet.tasks import end
from ratchet.types import EngineRecord
from tests.support.stores import candidate, embedded_store

POLICIES = ("support", "sales")
CONFIG = Config.model_validate(
    {"models": {"small": {"path": "x"}}, "policies": {name: {"base": "small", "lora": {"rank": 4}} for name in POLICIES}}
)


class World:
    """A gateway's routing by itself; its one replica cannot be asked again, so that it holds what `holds` says."""

    def __init__(self, store: Store, data: Path) -> None:
        self.store = store
        self.catalog = Catalog(CONFIG)
        self.fleet = Fleet(store, self.catalog, AdapterCache(CONFIG, data))
        self.replica = Replica(EngineRecord("a", "fake", "small", "http://127.0.0.1:9", "small"))
        self.replica.healthy = True
        self.fleet.replicas["a"] = self.replica
        self.moves = asyncio.Condition()
        self.pointers = Pointers(store.registry, self.catalog, self.fleet, Metrics(), self._moved)
        self.tasks: set[asyncio.Task[None]] = set()

    def holds(self, *names: str) -> None:
        self.replica.names = frozenset({"small", *names})

    async def publish(self, policy: str, version: int) -> None:
        await self.store.registry.commit_step(policy, version, candidate(version, version, [], policy=policy))
        await self.store.registry.publish(policy, version, expect_live=version - 1, verdict={})

    async def follows(self, policy: str, live: int) -> None:
        async with asyncio.timeout(20), self.moves:
            await self.moves.wait_for(lambda: self.live(policy) == live)

    def live(self, policy: str) -> int:
        return self.catalog.resolve(policy).version

    def _moved(self) -> None:
        async def tell() -> None:
            async with self.moves:
                self.moves.notify_all()

        task = asyncio.create_task(tell())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with embedded_store(tmp_path) as store:
        made = World(store, tmp_path)
        await made.pointers.begin(CONFIG)
        following = asyncio.create_task(made.pointers.follow())
        yield made
        await end([following])
        await made.fleet.close()


async def test_a_flip_that_nobody_can_serve_waits_past_its_patience_and_holds_up_no_other_policy(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.routing.pointers.PATIENCE_SECONDS", 0.0)
    world.holds("sales@1", "sales@2")
    await world.publish("support", 1)
    await world.publish("sales", 1)
    await world.follows("sales", 1)
    await world.publish("sales", 2)
    await world.follows("sales", 2)
    assert world.live("support") == 0
    world.holds("support@1", "sales@2")
    await world.follows("support", 1)


async def test_a_newer_flip_takes_the_place_of_one_that_waits(world: World) -> None:
    world.holds()
    await world.publish("support", 1)
    await world.publish("support", 2)
    world.holds("support@2")
    await world.follows("support", 2)
    assert not world.catalog.swapping


async def test_with_the_old_version_gone_too_the_pointer_moves_once_patience_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.routing.pointers.PATIENCE_SECONDS", 0.0)
    world.holds("support@1")
    await world.publish("support", 1)
    await world.follows("support", 1)
    world.holds()
    await world.publish("support", 2)
    await world.follows("support", 2)
