"""Loading versions onto replicas, and taking old ones off when nobody uses them."""

from __future__ import annotations

from pathlib import Path

import pytest

from learner.publication import publish
from learner.publication.publish import oldest_learnable
from learner.publication.replicas import Replicas
from ratchet import process
from ratchet.buffer import Store
from ratchet.errors import EngineUnavailable, GateRefused
from ratchet.types import Heartbeat, PolicyRecord, PolicyVersionRecord
from tests.support.learner_setup import World, configuration, record, tiny_engine, world
from tests.support.stores import POLICY


def lived(*versions: int) -> list[PolicyVersionRecord]:
    return [PolicyVersionRecord(POLICY, v, "retired", 0.0) for v in versions]


@pytest.mark.parametrize(
    ("live", "retained", "staleness", "oldest"),
    [
        (0, (), 2, 0),  # never trained
        (1, (1,), 2, 0),  # the base was live one version ago
        (2, (2, 1), 2, 0),
        (3, (3, 2, 1), 2, 1),  # the base is three versions back
        (9, (9, 5, 2), 2, 2),  # refused numbers do not count
        (2, (2, 5, 4), 2, 2),  # rolled back from 5
        (7, (7,), 0, 7),  # nothing stale is learned from
        (0, (), 0, 0),
        (0, (3, 2), 2, 0),  # rolled back to the base, whose own answers are fresh
    ],
)
def test_staleness_counts_versions_that_were_live(live: int, retained: tuple[int, ...], staleness: int, oldest: int) -> None:
    assert oldest_learnable(PolicyRecord(POLICY, "b", live=live), lived(*retained), staleness) == oldest


async def trained(w: World, versions: int) -> None:
    for number in range(versions):
        item = await w.ask(f"Question {number}", version=await w.live())
        from tests.support.stores import rate

        await rate(w.store, item, [0.0, 1.0, 2.0, 3.0])
        assert await w.loop.cycle()
    await w.loop._parts.retirement.wait()


async def listed(w: World) -> set[str]:
    return set(await (await w.engine()).models()) - {"tiny"}


async def test_only_the_retained_versions_stay_on_the_engine(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    async with world(store, tmp_path, configuration(model, url, schedule={"min_groups": 1, "max_staleness": 1})) as w:
        await trained(w, 3)
        assert await listed(w) == {f"{POLICY}@3", f"{POLICY}@2"}


@pytest.mark.parametrize("beat", [Heartbeat("g", {f"{POLICY}@1": 1}, {POLICY: 99}), Heartbeat("g", {}, {POLICY: 1}), Heartbeat("g")])
async def test_a_version_in_use_or_still_followed_stays(beat: Heartbeat, store: Store, model: Path, url: str, tmp_path: Path) -> None:
    async with world(store, tmp_path, configuration(model, url, schedule={"min_groups": 1, "max_staleness": 0})) as w:
        await trained(w, 1)
        await store.fleet.heartbeat(beat)
        # The second publication begins a retirement that has to wait; ask it directly.
        item = await w.ask("Again", version=1)
        from tests.support.stores import rate

        await rate(store, item, [0.0, 1.0, 2.0, 3.0])
        assert await w.loop.cycle()
        await w.loop.stop()
        await store.fleet.heartbeat(beat)
        assert await w.loop._parts.retirement.once()
        assert await listed(w) == {f"{POLICY}@1", f"{POLICY}@2"}
        await store.fleet.heartbeat(Heartbeat("g", {f"{POLICY}@1": 0}, {POLICY: 2}))
        assert not await w.loop._parts.retirement.once()
        assert await listed(w) == {f"{POLICY}@2"}


async def test_an_adapter_the_engine_refuses_is_refused_by_the_gate(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    async with world(store, tmp_path, configuration(model, url)) as w:
        missing = PolicyVersionRecord(POLICY, 1, "candidate", 0.0, path=f"adapters/{POLICY}/1-absent")
        with pytest.raises(GateRefused, match="refused the adapter") as caught:
            await publish.bring([await w.engine()], w.replicas, missing)
        assert caught.value.gate == "load"


async def test_an_engine_that_cannot_be_reached_says_nothing_of_the_candidate(store: Store, model: Path, tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{process.free_port()}"
    async with world(store, tmp_path, configuration(model, nobody)) as w:
        await w.loop._parts.replicas.some("tiny")
        with pytest.raises(EngineUnavailable):
            await publish.bring([await w.engine()], w.replicas, PolicyVersionRecord(POLICY, 1, "candidate", 0.0, path="adapters/x/y"))


async def test_an_engine_that_generates_nothing_is_no_replica_of_a_policy(store: Store, tmp_path: Path) -> None:
    replicas = Replicas(store, tmp_path)
    for found in (record("http://127.0.0.1:9"), record("http://127.0.0.1:8", "embedder", pools=True)):
        await store.fleet.put(found)
    assert [engine.record.name for engine in await replicas.some("tiny")] == ["tiny"]
    await replicas.close()


async def test_a_candidate_is_proved_on_every_replica(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    async with tiny_engine(model, tmp_path / "second.log") as second, world(store, tmp_path, configuration(model, url)) as w:
        await store.fleet.put(record(second, "second"))
        await trained(w, 1)
        version = await store.registry.version(POLICY, 1)
        assert version is not None and version.state == "live"
        assert [line["replica"] for line in version.verdict["proof"]] == ["second", "tiny"]
        assert set(version.verdict["swap"]["load_seconds"]) == {"second", "tiny"}


async def test_one_lying_replica_is_enough_to_refuse(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    async with tiny_engine(model, tmp_path / "liar.log", "--serve-base") as liar, world(store, tmp_path, configuration(model, url)) as w:
        await store.fleet.put(record(liar, "zliar"))
        await trained(w, 1)
        version = await store.registry.version(POLICY, 1)
        assert version is not None and version.state == "refused" and "zliar" in version.verdict["why"]
        assert await listed(w) == set(), "the honest replica lets it go too"
