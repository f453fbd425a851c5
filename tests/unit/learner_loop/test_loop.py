"""One policy's loop on a real store, a small real model, and a small real engine."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch

from learner.policy.trainer import Trainer
from ratchet import adapters, process
from ratchet.buffer import Store
from ratchet.errors import EngineUnavailable
from ratchet.tasks import end
from tests.support.learner_setup import World, configuration, record, until, world
from tests.support.stores import POLICY, group_of, rate


async def test_a_rated_group_becomes_a_proven_live_version(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    async with world(store, tmp_path, configuration(model, url)) as w:
        item = await w.learnable("Where is my parcel?")
        assert await w.loop.cycle()
        version = await store.registry.version(POLICY, 1)
        assert version is not None and version.state == "live" and version.consumed == [item.id]
        verdict = version.verdict
        assert verdict["passed"] and verdict["gate"] is None
        (proof,) = verdict["proof"]
        assert proof["max_abs_logprob_diff"] <= proof["tolerance"] < proof["max_abs_diff_from_base"]
        assert set(verdict["swap"]["load_seconds"]) == {"tiny"} and verdict["swap"]["flipped"] >= verdict["swap"]["load_started"]
        manifest = adapters.verify(adapters.ArtifactStore(tmp_path), version, rank=4, base="tiny")
        assert manifest.parent == 0 and manifest.interactions == [item.id]
        ledger = await store.feedback.ledger()
        assert ledger.balances and ledger.used == ledger.received == 4


async def test_the_status_tells_of_the_step(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    async with world(store, tmp_path, configuration(model, url)) as w:
        await w.learnable("Where is my parcel?")
        await w.loop.cycle()
        status = await store.registry.status(POLICY)
        assert (status["phase"], status["step"], status["version"], status["live"], status["refused"]) == ("waiting", 1, 1, 1, 0)
        assert status["tokens_per_s"] > 0 and status["reward"] == 1.5 and status["kl"] == pytest.approx(0, abs=1e-6)
        (line,) = status["history"]
        assert (line["version"], line["state"], line["reward"]) == (1, "live", 1.5) and line["kl"] > 0 and line["seconds"] > 0


async def test_a_refused_candidate_leaves_weights_optimiser_and_pointer_where_they_were(
    store: Store, model: Path, url: str, tmp_path: Path
) -> None:
    config = configuration(model, url, gate={"probes": 2, "max_kl": 1e-12})
    async with world(store, tmp_path, config) as w:
        await w.learnable("Where is my parcel?")
        assert await w.loop.cycle()
        assert await w.state(1) == "refused" and await w.live() == 0
        trainer = w.loop._trainer
        fresh = Trainer(
            POLICY,
            trainer.config,
            model_path=str(model),
            artifacts=adapters.ArtifactStore(tmp_path / "x"),
            learner=config.learner,
            worker=trainer.worker,
        )
        await fresh.loaded()
        assert same(trainer.policy.adapter_state(), fresh.policy.adapter_state())
        assert trainer._optimiser.state() == {}
        assert await (await w.engine()).models() == ["tiny"]
        ledger = await store.feedback.ledger()
        assert ledger.balances and ledger.rejected == {"gate": 4}
        status = await store.registry.status(POLICY)
        assert status["refused"] == 1 and status["why"].startswith("kl: ")
        await w.loop.cycle()
        assert not any((tmp_path / "checkpoints" / POLICY).iterdir()), "its checkpoint is of no use to anyone"


async def test_the_same_experience_after_a_refusal_makes_what_it_would_have_made_at_first(
    store: Store, model: Path, url: str, tmp_path: Path
) -> None:
    """A refused candidate leaves no trace in weights or moments: the next one is that of a learner that never saw it."""
    strict, mild = configuration(model, url, gate={"max_kl": 1e-12}), configuration(model, url)
    async with world(store, tmp_path, strict) as w:
        await w.learnable("bad")
        await w.loop.cycle()
        assert await w.state(1) == "refused"
        w.loop._parts.gate._config = mild.policies[POLICY]
        item = await w.learnable("good")
        await w.loop.cycle()
        assert await w.state(2) == "live"
        trained = w.loop._trainer.policy.adapter_files()
        fresh = Trainer(
            POLICY,
            mild.policies[POLICY],
            model_path=str(model),
            artifacts=adapters.ArtifactStore(tmp_path),
            learner=mild.learner,
            worker=w.worker,
        )
        base = await store.registry.version(POLICY, 0)
        assert base is not None
        await fresh.at(base)
        await fresh.update([group_of(item, [0.0, 1.0, 2.0, 3.0])], lambda done, total: None)
        assert fresh.policy.adapter_files() == trained


async def test_after_a_rollback_learning_goes_on_from_the_version_that_is_live(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    async with world(store, tmp_path, configuration(model, url)) as w:
        for text in ("one", "two"):
            await w.learnable(text)
            await w.loop.cycle()
        await store.registry.move(POLICY, 1, expect_live=2, reason="rollback")
        await w.learnable("three")
        await w.loop.cycle()
        third = await store.registry.version(POLICY, 3)
        assert third is not None and third.parent == 1 and third.state == "live"
        await store.registry.move(POLICY, 0, expect_live=3, reason="rollback")
        await w.learnable("four")
        await w.loop.cycle()
        fourth = await store.registry.version(POLICY, 4)
        assert fourth is not None and fourth.parent == 0 and fourth.state == "live"


async def test_a_move_during_the_update_makes_the_same_lease_learn_again_from_the_new_live_version(
    store: Store, model: Path, url: str, tmp_path: Path
) -> None:
    async with world(store, tmp_path, configuration(model, url)) as w:
        await w.learnable("one")
        await w.loop.cycle()
        item = await w.learnable("two")
        update = w.loop._trainer.update

        async def moved(*args: object) -> object:
            report = await update(*args)  # type: ignore[arg-type]
            await store.registry.move(POLICY, 0, expect_live=1, reason="rollback")
            return report

        w.loop._trainer.update = moved  # type: ignore[assignment]
        assert await w.loop.cycle() and await store.registry.version(POLICY, 2) is None
        w.loop._trainer.update = update  # type: ignore[method-assign]
        await w.loop.cycle()
        second = await store.registry.version(POLICY, 2)
        assert second is not None and second.parent == 0 and second.consumed == [item.id] and second.state == "live"


async def test_a_move_during_the_gate_refuses_the_candidate_of_the_abandoned_version(
    store: Store, model: Path, url: str, tmp_path: Path
) -> None:
    async with world(store, tmp_path, configuration(model, url)) as w:
        await w.learnable("one")
        await w.loop.cycle()
        await w.learnable("two")
        examine = w.loop._parts.gate.examine

        async def moved(*args: object) -> None:
            await examine(*args)  # type: ignore[arg-type]
            await store.registry.move(POLICY, 0, expect_live=1, reason="rollback")

        w.loop._parts.gate.examine = moved  # type: ignore[assignment, method-assign]
        await w.loop.cycle()
        second = await store.registry.version(POLICY, 2)
        assert second is not None and second.state == "refused" and second.verdict["gate"] == "pointer" and await w.live() == 0


async def test_a_gradient_that_is_too_large_is_refused_before_any_engine_sees_the_adapter(
    store: Store, model: Path, url: str, tmp_path: Path
) -> None:
    async with world(store, tmp_path, configuration(model, url, gate={"max_grad_norm": 1e-9})) as w:
        await w.learnable("one")
        await w.loop.cycle()
        version = await store.registry.version(POLICY, 1)
        assert version is not None and version.verdict["gate"] == "sanity" and version.verdict["swap"]["load_started"] is None


async def test_a_step_with_a_number_that_is_not_finite_is_refused_and_its_rewards_are_not_tried_for_ever(
    store: Store, model: Path, url: str, tmp_path: Path
) -> None:
    async with world(store, tmp_path, configuration(model, url, algorithm={"type": "grpo", "scale": "none"})) as w:
        item = await w.ask("one")
        await rate(store, item, [0.0, 1e39, 2.0, 3.0])  # no float32 holds it
        assert await w.loop.cycle()
        version = await store.registry.version(POLICY, 1)
        assert version is not None and version.state == "refused" and version.verdict["gate"] == "sanity" and not version.path
        assert (await store.feedback.ledger()).rejected == {"gate": 4} and await store.experience.ready(POLICY, ["group"]) == 0
        await w.learnable("two")
        await w.loop.cycle()
        assert await w.live() == 2, "the next step is none the worse"


async def test_an_adapter_damaged_on_disk_is_refused(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    async with world(store, tmp_path, configuration(model, url)) as w:
        await w.learnable("one")
        decide = w.loop._decide

        async def damaged(candidate: object) -> None:
            (weights,) = (tmp_path / "adapters" / POLICY).glob("1-*/adapter_model.safetensors")
            content = bytearray(weights.read_bytes())
            content[-1] ^= 1
            weights.write_bytes(content)
            await decide(candidate)  # type: ignore[arg-type]

        w.loop._decide = damaged  # type: ignore[assignment, method-assign]
        await w.loop.cycle()
        version = await store.registry.version(POLICY, 1)
        assert version is not None and version.verdict["gate"] == "sanity" and "sha256" in version.verdict["why"]


async def test_while_no_engine_answers_the_candidate_waits_and_is_decided_afterwards(
    store: Store, model: Path, url: str, tmp_path: Path
) -> None:
    async with world(store, tmp_path, configuration(model, url)) as w:
        await w.learnable("one")
        await store.fleet.put(record(f"http://127.0.0.1:{process.free_port()}"))
        with pytest.raises(EngineUnavailable):
            await w.loop.cycle()
        assert await w.state(1) == "candidate" and (await store.feedback.ledger()).pending == 4
        await store.fleet.put(record(url, state="down"))
        with pytest.raises(EngineUnavailable, match="no engine of tiny is ready"):
            await w.loop.cycle()
        await store.fleet.put(record(url))
        await w.loop.cycle()
        assert await w.state(1) == "live"


async def test_the_loop_outlives_what_passes_and_says_why(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    async with world(store, tmp_path, configuration(model, url)) as w:
        await w.learnable("one")
        await store.fleet.remove("tiny")
        running = asyncio.create_task(w.loop.run())
        await until(lambda: says(w, "no engine of tiny is ready"))
        await store.fleet.put(record(url))
        await until(lambda: is_live(w, 1))
        await end([running])


async def test_a_policy_with_no_work_holds_no_model(store: Store, url: str, tmp_path: Path) -> None:
    async with world(store, tmp_path, configuration(tmp_path / "nowhere", url)) as w:
        assert not await w.loop.cycle()
        assert w.loop._trainer._policy is None


async def says(w: World, text: str) -> bool:
    return text in str((await w.store.registry.status(POLICY)).get("why", ""))


async def is_live(w: World, version: int) -> bool:
    return await w.live() == version


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
