"""One policy's loop on a real store, a small real model, and a small real engine."""

from __future__ import annotations

from pathlib import Path

from ratchet import adapters
from ratchet.buffer import Store
from tests.learner_world import configuration, world
from tests.stores import POLICY


async def test_a_rated_group_becomes_a_proven_live_version(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    config = configuration(model, url)
    async with world(store, tmp_path, config) as w:
        item = await w.learnable("Where is my parcel?")
        assert await w.loop.cycle()
        version = await store.registry.version(POLICY, 1)
        assert version is not None and version.state == "live" and version.consumed == [item.id]
        verdict = version.verdict
        assert verdict["passed"] and verdict["gate"] is None
        (proof,) = verdict["proof"]
        assert proof["max_abs_logprob_diff"] <= proof["tolerance"] < proof["max_abs_diff_from_base"]
        assert set(verdict["swap"]["load_seconds"]) == {"tiny"} and verdict["swap"]["flipped"] >= verdict["swap"]["load_started"]
        manifest = adapters.verify(tmp_path, version, rank=4, base="tiny")
        assert manifest.parent == 0 and manifest.interactions == [item.id]
        ledger = await store.feedback.ledger()
        assert ledger.balances and ledger.used == ledger.received == 4
