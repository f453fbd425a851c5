"""The activation proof's judgement, and its refusal of engines that serve another thing under the candidate's name."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from learner.gate import proof
from learner.gate.proof import Comparison
from ratchet.buffer import Store
from ratchet.errors import GateRefused
from tests.support.learner_setup import configuration, tiny_engine, world
from tests.support.stores import POLICY

TOLERANCE = 0.01


def found(from_learner: float, from_base: float) -> Comparison:
    return Comparison("e", from_learner, from_base, tokens=8, kl=0.1, tolerance=TOLERANCE)


def test_what_equals_the_learner_and_not_the_base_passes() -> None:
    proof.judge(found(0.009, 0.5))


@pytest.mark.parametrize("differences", [(0.02, 0.5), (0.5, 0.001), (math.nan, 0.5)])
def test_what_differs_from_the_learner_is_refused(differences: tuple[float, float]) -> None:
    with pytest.raises(GateRefused, match="differs from the learner") as caught:
        proof.judge(found(*differences))
    assert caught.value.gate == "proof"


@pytest.mark.parametrize("from_base", [0.0, 0.01, math.nan])
def test_what_cannot_be_told_from_the_base_is_refused(from_base: float) -> None:
    with pytest.raises(GateRefused, match="cannot be told from it"):
        proof.judge(found(0.001, from_base))


def test_the_largest_differences_and_the_kl_are_taken_over_all_tokens() -> None:
    result = proof.compare("e", [(-1.0, -1.25, -3.0), (-2.0, -2.0, -1.5)])
    assert (result.max_abs_logprob_diff, result.max_abs_diff_from_base, result.tokens) == (0.25, 2.0, 2)
    expected = [math.exp(-1.75) - 1 + 1.75, math.exp(0.5) - 1 - 0.5]
    assert result.kl == pytest.approx(sum(expected) / 2)


def test_a_log_prob_that_is_no_number_cannot_pass() -> None:
    result = proof.compare("e", [(math.nan, -1.0, -3.0), (-1.0, -1.0, -3.0)])
    assert math.isnan(result.max_abs_logprob_diff)


def test_a_replica_that_draws_nothing_proves_nothing() -> None:
    with pytest.raises(GateRefused, match="drew no token"):
        proof.compare("e", [])


@pytest.mark.slow
async def test_an_engine_that_serves_the_base_under_the_candidates_name_is_refused(store: Store, model: Path, tmp_path: Path) -> None:
    async with tiny_engine(model, tmp_path / "liar.log", "--serve-base") as url, world(store, tmp_path, configuration(model, url)) as w:
        await w.learnable("Where is my parcel?")
        assert await w.loop.cycle()
        version = await store.registry.version(POLICY, 1)
        assert version is not None and version.state == "refused" and version.verdict["gate"] == "proof"
        (line,) = version.verdict["proof"]
        assert line["max_abs_diff_from_base"] <= line["tolerance"] < line["max_abs_logprob_diff"]
        assert await w.live() == 0 and await (await w.engine()).models() == ["tiny"]
        assert (await store.feedback.ledger()).rejected == {"gate": 4}


@pytest.mark.slow
async def test_an_engine_of_another_base_is_refused(store: Store, model: Path, tmp_path: Path) -> None:
    from tests.support import tiny_model

    other = tiny_model.save(tmp_path / "other", seed=8)
    async with tiny_engine(other, tmp_path / "other.log") as url, world(store, tmp_path, configuration(model, url)) as w:
        await w.learnable("Where is my parcel?")
        assert await w.loop.cycle()
        version = await store.registry.version(POLICY, 1)
        assert version is not None and version.verdict["gate"] == "proof" and "its base differs" in version.verdict["why"]


async def test_the_tolerance_is_calibrated_once_a_replica_and_has_a_floor(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    async with world(store, tmp_path, configuration(model, url)) as w:
        prover = w.loop._parts.gate._prover
        engine = await w.engine()
        assert await prover.tolerance(engine) == proof.FLOOR
        prover._tolerances[(engine.record.name, engine.record.url)] = 0.125
        assert await prover.tolerance(engine) == 0.125
