"""Row 3 of reliability.md: kill -9 the store under load; whatever it acknowledged is there after the restart."""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path

import pytest

from ratchet.buffer import EmbeddedServer, Store, open_store, schema
from ratchet.config import StoreConfig
from ratchet.errors import StoreUnavailable
from tests.support.fault_figures import FULL, measured
from tests.support.stores import BASE, POLICY, TENANT, candidate, interaction, listed, post

KILLS = 50 if FULL else 5
CONFIG = StoreConfig()
WRITERS = 8
LONGEST_SECONDS = 0.4


class Load:
    """Writers that note what was acknowledged, and go on after a failure."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.recorded: set[str] = set()
        self.rated: set[str] = set()
        self.versions: set[int] = set()
        self.failed = 0
        self.acknowledged = asyncio.Event()

    async def client(self) -> None:
        """Records groups of answers and rates every choice."""
        while True:
            items = [interaction(2) for _ in range(3)]
            try:
                await self.store.interactions.put(items)
                self.recorded.update(item.id for item in items)
                for choice in range(2):
                    fb = await self.store.feedback.post(
                        post(items[0].id, float(choice), choice=choice, idempotency_key=f"{items[0].id}{choice}")
                    )
                    self.rated.add(fb)
                self.acknowledged.set()
            except StoreUnavailable:
                self.failed += 1
                return

    async def learner(self) -> None:
        """Leases, commits and publishes, taking up a step where a kill left it."""
        registry = self.store.registry
        while True:
            try:
                record = await registry.policy(POLICY)
                assert record is not None
                newest = (await registry.versions(POLICY))[-1]
                if newest.state == "candidate":
                    await registry.publish(POLICY, newest.version, expect_live=record.live, verdict={})
                    self.versions.add(newest.version)
                    continue
                lease = await self.store.experience.lease(POLICY, record.step + 1, kinds={"group": 0}, max_examples=4)
                if lease is not None:
                    consumed = [group.id for group in lease.examples]
                    await registry.commit_step(POLICY, lease.step, candidate(record.next_version, lease.step, consumed))
            except StoreUnavailable:
                return

    async def until_killed(self, server: EmbeddedServer, seconds: float) -> None:
        """Loads the store until it is killed, at least `seconds` after its first answer."""
        self.acknowledged.clear()
        async with asyncio.TaskGroup() as group:
            for _ in range(WRITERS):
                group.create_task(self.client())
            group.create_task(self.learner())
            await self.acknowledged.wait()
            asyncio.get_running_loop().call_later(seconds, server.process.send_signal, signal.SIGKILL)
            assert await server.wait() == -signal.SIGKILL


async def missing(store: Store, keys: list[str]) -> list[str]:
    """Those of `keys` that the store does not have."""
    there = await store.interactions._link.together(*(("EXISTS", key) for key in keys))
    return [key for key, found in zip(keys, there, strict=True) if not found]


async def check(load: Load) -> None:
    """Nothing acknowledged is missing, the ledger balances, and no reward is in two versions."""
    store = load.store
    assert await missing(store, [schema.blob(item) for item in load.recorded]) == []
    assert await missing(store, [schema.feedback(fb) for fb in load.rated]) == []
    ledger = await store.feedback.ledger()
    assert ledger.balances
    assert ledger.received >= len(load.rated)
    versions = await store.registry.versions(POLICY)
    assert load.versions <= {version.version for version in versions}
    consumed = [group for version in versions for group in version.consumed]
    assert len(consumed) == len(set(consumed))


@pytest.mark.slow
async def test_a_store_killed_under_load_has_everything_it_acknowledged(tmp_path: Path) -> None:
    rng = random.Random(3)
    server = await EmbeddedServer.start(tmp_path, CONFIG)
    store = await open_store("embedded", CONFIG, data=tmp_path)
    await store.registry.ensure(POLICY, BASE)
    load = Load(store)
    try:
        for _ in range(KILLS):
            await load.until_killed(server, rng.uniform(0, LONGEST_SECONDS))
            await server.stop()
            server = await EmbeddedServer.start(tmp_path, CONFIG)
            await check(load)
        kept = len(load.recorded), len(load.rated), len(load.versions)
        measured("%d kills: %d interactions, %d rewards, %d versions kept", KILLS, *kept)
        assert load.failed
        assert (await listed(store, TENANT, limit=1))[1]
    finally:
        await store.close()
        await server.stop()
