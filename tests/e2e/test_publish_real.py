"""The real vLLM, the real small model, the real store: a step is proved active and goes live; what is not active is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from learner.gate import proof
from ratchet.config import Config
from ratchet.errors import GateRefused
from ratchet.types import EngineRecord, PolicyVersionRecord
from tests.support.learner_setup import World, world
from tests.support.stores import POLICY, embedded_store
from tests.support.vllm_server import BASE, real_engine  # noqa: F401

pytestmark = pytest.mark.real


@asynccontextmanager
async def real_world(record: EngineRecord, data: Path, **policy: Any) -> AsyncIterator[World]:
    config = Config.model_validate(
        {
            "models": {BASE: {"path": BASE}},
            "engines": [{"name": record.name, "kind": "vllm", "model": BASE, "url": record.url}],
            "policies": {POLICY: {"base": BASE, "schedule": {"min_groups": 1}, "gate": {"probes": 2}} | policy},
        }
    )
    async with embedded_store(data) as store, world(store, data, config, [record]) as w:
        yield w
        engine = await w.engine()
        for name in await engine.models():
            if name != engine.record.served_name:
                await engine.unload(name)


async def decided(w: World) -> PolicyVersionRecord:
    await w.learnable("Tell me about the moon.")
    assert await w.loop.cycle()
    version = await w.store.registry.version(POLICY, 1)
    assert version is not None
    return version


async def test_a_step_is_proved_on_the_real_engine_and_goes_live(real_engine: EngineRecord, tmp_path: Path) -> None:  # noqa: F811
    async with real_world(real_engine, tmp_path) as w:
        version = await decided(w)
        assert version.state == "live", version.verdict
        (line,) = version.verdict["proof"]
        assert line["max_abs_logprob_diff"] <= line["tolerance"] < line["max_abs_diff_from_base"]
        # float32 on both sides: the floor holds, and the change of one step is far above it.
        assert line["tolerance"] == proof.FLOOR and line["max_abs_diff_from_base"] > 10 * line["tolerance"]
        assert f"{POLICY}@1" in await (await w.engine()).models()


async def test_the_base_served_in_place_of_a_real_candidate_is_refused(
    real_engine: EngineRecord,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with real_world(real_engine, tmp_path) as w:
        monkeypatch.setattr(proof, "live_name", lambda engine, policy, version: engine.record.served_name)
        version = await decided(w)
        assert version.state == "refused" and version.verdict["gate"] == "proof", version.verdict
        (line,) = version.verdict["proof"]
        assert line["max_abs_diff_from_base"] <= line["tolerance"] < line["max_abs_logprob_diff"]
        assert await w.live() == 0


async def test_an_adapter_that_changes_nothing_is_not_taken_for_an_active_one(real_engine: EngineRecord, tmp_path: Path) -> None:  # noqa: F811
    async with real_world(real_engine, tmp_path, algorithm={"type": "grpo", "learning_rate": 1e-12}) as w:
        version = await decided(w)
        assert version.state == "refused" and "cannot be distinguished from it" in version.verdict["why"], version.verdict


async def test_a_candidate_compared_with_other_weights_than_its_own_is_refused(real_engine: EngineRecord, tmp_path: Path) -> None:  # noqa: F811
    async with real_world(real_engine, tmp_path) as w:
        version = await decided(w)
        assert version.state == "live"
        base = await w.store.registry.version(POLICY, 0)
        assert base is not None
        await w.loop.parts.trainer.at(base)
        with pytest.raises(GateRefused, match="differs from the learner"):
            proof.judge(await w.loop.parts.gate._prover.prove(await w.engine(), version))
