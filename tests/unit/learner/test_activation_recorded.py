"""The activation proof on log-probs recorded from a real vLLM, float32 and bfloat16: lineages that it was not chosen on.

Each case is judged 100 times, on 24 of its 48 recorded answers.
"""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from bench.activation import data, rates
from bench.activation.rates import BASE, Case
from bench.activation.train import LINEAGES
from learner.gate import activation

ANSWERS = 24
LINEAGES_OF = {f"{rate:g}": (seed, rate) for seed, rate in LINEAGES if seed % 2}
RECORDED = [(level, rate) for level in data.LEVELS for rate in LINEAGES_OF if (level, rate) != ("bfloat16", "3e-05")]
"""The learner's rounded log-probs of the smallest steps are not complete."""
recorded = cache(data.load)


@cache
def outcomes(level: str, rate: str, kind: str) -> Counter[str]:
    """Over the lineage's versions."""
    chosen = [case for case in rates.cases(*LINEAGES_OF[rate]) if case.kind == kind]
    found = [rates.trials(recorded()[level], case, ANSWERS) for case in chosen]
    assert [f.total() for f in found] == [rates.TRIALS] * len(chosen), "the recording lacks a case"
    return sum(found, Counter())


@pytest.mark.parametrize("kind", ["stale", "unapplied", "wrong"])
@pytest.mark.parametrize(("level", "rate"), RECORDED)
def test_what_is_not_the_candidate_is_never_called_active(level: str, rate: str, kind: str) -> None:
    assert outcomes(level, rate, kind)["active"] == 0


@pytest.mark.parametrize(("level", "rate"), RECORDED)
def test_the_candidate_is_not_refused_for_the_engines_noise(level: str, rate: str) -> None:
    assert outcomes(level, rate, "true")["refused"] == 0


@pytest.mark.parametrize("rate", LINEAGES_OF)
def test_a_float32_engine_is_told_from_every_other_at_every_step_size(rate: str) -> None:
    assert outcomes("float32", rate, "true")["active"] == 300
    for kind in ("stale", "unapplied", "wrong", "unknown"):
        assert outcomes("float32", rate, kind)["refused"] == outcomes("float32", rate, kind).total()


def test_a_bfloat16_engine_is_told_at_the_default_learning_rate() -> None:
    """Seen: 261 of 300 active, the others undecided, none refused."""
    found = outcomes("bfloat16", "0.001", "true")
    assert found["active"] >= 0.85 * found.total()
    for kind in ("stale", "unapplied", "wrong"):
        assert outcomes("bfloat16", "0.001", kind)["refused"] >= 0.95 * outcomes("bfloat16", "0.001", kind).total()


def test_steps_too_small_for_a_bfloat16_engine_stay_undecided() -> None:
    found = outcomes("bfloat16", "0.0001", "true")
    assert found["undecided"] >= 0.9 * found.total()


def test_the_base_tells_in_which_precision_an_engine_computes() -> None:
    exact = {level: activation.noise(sets[BASE], BASE, exact=True) for level, sets in recorded().items()}
    assert exact["float32"] < activation.ROUNDING < exact["bfloat16"] < activation.BASE_LIMIT


def test_a_float32_learner_would_refuse_what_a_bfloat16_engine_rounds_away() -> None:
    """Why the learner computes in the engine's precision: otherwise the second version at 3e-4 looks like the first."""
    seed, rate = LINEAGES_OF["0.0003"]
    name = f"{seed}-{rate:g}@2"
    exact = rates.in_float32(recorded()["bfloat16"])
    case = Case("true", name, name, (BASE, f"{seed}-{rate:g}@1"))
    assert rates.trials(exact, case, 40)["active"] == 0
    assert rates.trials(recorded()["bfloat16"], case, 40)["refused"] == 0


def test_the_recording_holds_at_least_twenty_adapters_in_each_precision() -> None:
    for sets in recorded().values():
        assert len(sets.keys() - {BASE}) >= 20
        assert all(len(probes) >= 45 for probes in sets.values())
