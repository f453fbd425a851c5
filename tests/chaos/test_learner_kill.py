"""kill -9 of the learner at each failpoint: no reward in two manifests, none lost, and the same bytes as undisturbed.

One recorded experience is copied for each case; the learner is a process of its own; engine, store and model are real.
Each case is run once, and five times with RATCHET_FAULTS=full (also at the second step, and several
learners in a row).
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from ratchet import adapters
from ratchet.buffer import Store
from ratchet.config import Config
from ratchet.types import Ledger
from tests.support import tiny_model
from tests.support.fault_figures import FULL
from tests.support.learner_setup import ROOT, SCORER, Learner, answered, configuration, connected, record, tiny_engine, until
from tests.support.stores import POLICY, embedded_store, rate

GROUPS = 4
ANSWERS = 4
TIMES = 5 if FULL else 1
PUBLISHED: dict[str, Any] = {"schedule": {"min_groups": 1, "max_staleness": 0}}
REFUSED: dict[str, Any] = {"schedule": {"min_groups": 1}, "gate": {"probes": 2, "max_kl": 1e-12}}
SHADOWED: dict[str, Any] = {
    "rewards": [{"path": SCORER}],
    "shadow": {"enabled": True},
    "schedule": {"min_groups": 2},
}
CASES = {
    "learner.before_refuse": REFUSED,
    "learner.after_refuse": REFUSED,
    "learner.before_shadow": SHADOWED,
    "learner.after_shadow": SHADOWED,
}

ANYWHERE = [(1, 1), (1, 2), (2, 1), (3, 1), (4, 1)]
"""(learners killed in a row, at which hit) of each of the five times."""
BEHIND_A_COMMIT = [(1, 1), (1, 2), (2, 1), (1, 1), (2, 1)]
"""A resumed learner does not come by again for the same step, and there are two steps."""
PLANS = {
    "learner.after_commit": BEHIND_A_COMMIT,
    "learner.after_publish": BEHIND_A_COMMIT,
    "learner.after_refuse": BEHIND_A_COMMIT,
    "durable.before_rename": [(1, 1), (1, 2), (1, 3), (3, 1), (1, 4)],  # three renames a step
    "learner.before_unload": [(1, 1), (2, 1), (3, 1), (1, 1), (2, 1)],  # one version is unloaded in all
}


def failpoints() -> list[str]:
    """Every failpoint in the learner's source, and the one of what it writes durably: checkpoint, manifest, adapter."""
    found = [
        re.findall(r'failpoints\.hit\("(learner\.\w+)"\)', p.read_text(encoding="utf-8")) for p in sorted((ROOT / "learner").rglob("*.py"))
    ]
    return ["durable.before_rename", *(name for names in found for name in names)]


@dataclass
class Recorded:
    """Experience on disk, the engine it came from, and the groups' ids."""

    data: Path
    url: str
    model: Path
    groups: list[str]

    def config(self, **policy: Any) -> Config:
        return configuration(self.model, self.url, **policy)

    def copy(self, to: Path) -> Path:
        shutil.copytree(self.data, to, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.sock", "socket", "lock"))
        return to


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def recorded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Recorded]:
    """Four rated groups, answered by the engine's base, in a store that was stopped cleanly."""
    model, data = tiny_model.save(tmp_path_factory.mktemp("model")), tmp_path_factory.mktemp("recorded")
    async with tiny_engine(model, data / "logs" / "tiny.log") as url:
        engine = await connected(url)
        # With no staleness allowed, the first step learns from the first half, the second from the second.
        items = [await answered(engine, f"Question {i}?", ANSWERS, seed=i, version=i * 2 // GROUPS) for i in range(GROUPS)]
        await engine.close()
        async with embedded_store(data) as store:
            await store.fleet.put(record(url))
            await store.registry.ensure(POLICY, tiny_model.NAME)
            for item in items:
                await store.interactions.put([item])
                await rate(store, item, [float((i * 7) % 5) for i in range(ANSWERS)])
        yield Recorded(data, url, model, sorted(item.id for item in items))


@dataclass
class Outcome:
    """What a run left: each version's state, file hashes and consumed groups, and the ledger."""

    states: dict[int, str]
    files: dict[int, dict[str, str]]
    consumed: list[str]
    ledger: Ledger


async def outcome(store: Store, data: Path) -> Outcome:
    versions = [v for v in await store.registry.versions(POLICY) if v.version > 0]
    manifests = {v.version: adapters.verify(adapters.ArtifactStore(data), v, rank=4, base=tiny_model.NAME) for v in versions}
    for version, manifest in manifests.items():
        folder = data / next(v.path for v in versions if v.version == version)
        assert {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()} == manifest.files
    consumed = [group for manifest in manifests.values() for group in manifest.consumed]
    return Outcome(
        {v.version: v.state for v in versions}, {v: m.files for v, m in manifests.items()}, consumed, await store.feedback.ledger()
    )


async def finished(store: Store, wanted: int) -> bool:
    """Whether `wanted` versions are decided."""
    versions = [v for v in await store.registry.versions(POLICY) if v.version > 0]
    return len(versions) >= wanted and all(v.state != "candidate" for v in versions)


async def run_through(config: Config, data: Path, store: Store, failpoint: str = "", kills: int = 0, count: int = 1) -> None:
    """Kills the learner `kills` times at `failpoint`, then lets it finish."""
    for _ in range(kills):
        async with Learner(config, data, f"{failpoint}:{count}") as learner:
            assert await learner.ended() == -9, (data / "logs" / "learner.log").read_text(encoding="utf-8")[-3000:]
    async with Learner(config, data) as learner:
        await until(lambda: finished(store, 2), seconds=90)
        await until(lambda: idle(store), seconds=30)
        await stopped(learner)


async def stopped(learner: Learner) -> None:
    """Tells the learner to stop. It may not have come as far as to handle the signal: then it dies of it, and that is as good."""
    learner.terminate()
    assert await learner.ended() in (0, -15)


async def idle(store: Store) -> bool:
    return (await store.registry.status(POLICY)).get("phase") in ("waiting", "sampling")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def undisturbed(recorded: Recorded, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """The outcomes with no kill, for experience that is published and for experience that is refused."""
    found = {}
    for name, policy in (("published", PUBLISHED), ("refused", REFUSED)):
        data = recorded.copy(tmp_path_factory.mktemp(name))
        async with embedded_store(data) as store:
            await run_through(recorded.config(**policy), data, store)
            found[name] = await outcome(store, data)
    return found


def test_there_are_at_least_twelve_failpoints_each_named_once() -> None:
    names = failpoints()
    assert len(names) == len(set(names)) >= 12
    assert set(CASES) <= set(names)


@pytest.mark.parametrize("failpoint", [name for name in failpoints() if CASES.get(name) is not SHADOWED])
@pytest.mark.parametrize("turn", range(TIMES))
async def test_a_learner_killed_there_and_resumed_ends_as_if_nothing_had_happened(
    failpoint: str, turn: int, recorded: Recorded, undisturbed: dict[str, Outcome], tmp_path: Path
) -> None:
    refused = CASES.get(failpoint) is REFUSED
    config, data = recorded.config(**(REFUSED if refused else PUBLISHED)), recorded.copy(tmp_path)
    async with embedded_store(data) as store:
        kills, hit = PLANS.get(failpoint, ANYWHERE)[turn]
        await run_through(config, data, store, failpoint, kills, hit)
        found, wanted = await outcome(store, data), undisturbed["refused" if refused else "published"]
    assert found == wanted
    assert sorted(found.consumed) == recorded.groups
    total = GROUPS * ANSWERS
    assert found.ledger.balances and found.ledger.received == total
    assert found.ledger == (Ledger(total, 0, 0, {"gate": total}) if refused else Ledger(total, total))


@pytest.mark.parametrize("failpoint", [name for name in failpoints() if CASES.get(name) is SHADOWED])
async def test_a_shadow_group_sampled_twice_is_stored_once(failpoint: str, recorded: Recorded, tmp_path: Path) -> None:
    config, data = recorded.config(**SHADOWED), recorded.copy(tmp_path)
    async with embedded_store(data) as store:
        await run_through(config, data, store, failpoint, kills=1)
        found = await outcome(store, data)
    assert len(found.consumed) == len(set(found.consumed))
    assert found.ledger.balances


async def test_what_no_commit_names_is_deleted_at_the_next_start(recorded: Recorded, tmp_path: Path) -> None:
    config, data = recorded.config(**PUBLISHED), recorded.copy(tmp_path)
    async with embedded_store(data) as store:
        async with Learner(config, data, "learner.after_checkpoint") as learner:
            assert await learner.ended() == -9
        (orphan,) = [p.name for p in (data / "checkpoints" / POLICY).iterdir()]
        await run_through(config, data, store)
        kept = {p.name for p in (data / "checkpoints" / POLICY).iterdir()}
        committed = {v.checkpoint for v in await store.registry.versions(POLICY) if v.version > 0}
    # The same step wrote the same checkpoint again, so that the name is back: by its commit now.
    assert kept == committed and orphan in committed


async def test_a_learner_told_to_stop_ends_at_once_and_leaves_its_lease(recorded: Recorded, tmp_path: Path) -> None:
    config, data = recorded.config(**PUBLISHED), recorded.copy(tmp_path)
    async with embedded_store(data) as store:
        async with Learner(config, data) as learner:
            await until(lambda: busy(store), seconds=60)
            await stopped(learner)
        await run_through(config, data, store)
        assert (await store.feedback.ledger()).balances


async def busy(store: Store) -> bool:
    return (await store.registry.status(POLICY)).get("phase") not in (None, "waiting", "sampling")


async def test_a_second_learner_on_the_same_data_is_turned_away(recorded: Recorded, tmp_path: Path) -> None:
    config, data = recorded.config(schedule={"automatic": False}), recorded.copy(tmp_path)
    async with embedded_store(data) as store, Learner(config, data) as first:
        await until(lambda: idle(store), seconds=60)
        async with Learner(config, data) as second:
            assert await second.ended() == 2
        assert first.alive
        assert "another learner works on" in (data / "logs" / "learner.log").read_text(encoding="utf-8")
