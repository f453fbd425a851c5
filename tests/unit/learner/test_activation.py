"""The activation statistics by themselves: made-up engines whose noise is known."""

from __future__ import annotations

import math
import random

import pytest

from learner.gate.activation import ALPHA, LEAST_ANSWERS, NOISE_FLOOR, Probe, judge, noise, quantile

TOKENS = 16


def answers(count: int, *, serves: str, spread: float, step: float, seed: int = 0) -> list[Probe]:
    """Answers of an engine with Gaussian noise that serves `serves`; the versions differ from each other by about `step` nats."""
    chance = random.Random(seed)
    probes = []
    for _ in range(count):
        base = [-chance.expovariate(0.5) - 0.5 for _ in range(TOKENS)]
        versions = {"base": base}
        for name, before in (("v1", "base"), ("v2", "v1"), ("other", "base")):
            versions[name] = [value + chance.gauss(0, step) for value in versions[before]]
        engine = [value + chance.gauss(0, spread) for value in versions[serves]]
        probes.append(Probe(engine, versions, versions))
    return probes


def outcome(serves: str, *, count: int = 24, spread: float = 0.05, step: float = 0.1, known: tuple[str, ...] = ("base", "v1")) -> str:
    probes = answers(count, serves=serves, spread=spread, step=step)
    return judge("v2", known, probes, answers(count, serves="base", spread=spread, step=step, seed=1), "base").outcome


def test_the_candidate_is_active() -> None:
    assert outcome("v2") == "active"


@pytest.mark.parametrize(("serves", "against"), [("base", "base"), ("v1", "v1")])
def test_an_alternative_is_refused_and_named(serves: str, against: str) -> None:
    probes = answers(24, serves=serves, spread=0.05, step=0.1)
    found = judge("v2", ["base", "v1"], probes, answers(24, serves="base", spread=0.05, step=0.1, seed=1), "base")
    assert (found.outcome, found.against) == ("refused", against)
    assert found.answers == 24


def test_an_adapter_nobody_knows_is_refused_by_its_fit() -> None:
    probes = answers(24, serves="other", spread=0.02, step=0.3)
    found = judge("v2", ["v1"], probes, answers(24, serves="base", spread=0.02, step=0.3, seed=1), "base")
    assert found.outcome == "refused"
    assert found.t["fit"] <= -found.needed


def test_a_step_below_the_noise_stays_undecided() -> None:
    for serves in ("base", "v1", "v2"):
        assert outcome(serves, step=0.001) == "undecided"


def test_more_answers_decide_what_few_cannot() -> None:
    assert outcome("v2", count=LEAST_ANSWERS, step=0.03) == "undecided"
    assert outcome("v2", count=200, step=0.03) == "active"


def test_two_versions_that_are_the_same_are_never_told_apart() -> None:
    assert outcome("v2", step=0.0) == "undecided"


def test_too_few_answers_say_nothing() -> None:
    assert outcome("v2", count=LEAST_ANSWERS - 1) == "undecided"


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_a_log_prob_that_is_no_number_refuses(bad: float) -> None:
    probes = answers(24, serves="v2", spread=0.05, step=0.1)
    probes[3] = Probe([bad, *probes[3].engine[1:]], probes[3].exact, probes[3].rounded)
    assert judge("v2", ["base"], probes, answers(24, serves="base", spread=0.05, step=0.1), "base").outcome == "refused"


def test_there_must_be_something_to_compare_with() -> None:
    probes = answers(24, serves="v2", spread=0.05, step=0.1)
    with pytest.raises(ValueError, match="nothing to compare"):
        judge("v2", [], probes, probes, "base")
    with pytest.raises(ValueError, match="nothing to compare"):
        judge("v2", ["base"], probes, [], "base")


def test_the_noise_is_the_engines_and_never_below_the_floor() -> None:
    assert noise(answers(100, serves="base", spread=0.0, step=0.1), "base") == NOISE_FLOOR
    assert 0.05 < noise(answers(100, serves="base", spread=0.05, step=0.1), "base") < 0.09


def test_an_engine_of_more_noise_in_its_adapters_than_in_its_base_is_active_below_the_floor() -> None:
    """A float32 engine: a few 1e-5 nats on the base, ten times that through an adapter."""
    probes = answers(16, serves="v2", spread=3e-4, step=0.02)
    assert judge("v2", ["base", "v1"], probes, answers(16, serves="base", spread=3e-5, step=0.02), "base").outcome == "active"


@pytest.mark.parametrize("serves", ["base", "v1"])
def test_the_error_rate_is_what_it_says(serves: str) -> None:
    """At a step so small that the tests know least, 200 engines that serve an alternative; one look has a share of ALPHA."""
    active = 0
    for seed in range(200):
        probes = answers(12, serves=serves, spread=0.05, step=0.005, seed=2 * seed)
        base = answers(12, serves="base", spread=0.05, step=0.005, seed=2 * seed + 1)
        active += judge("v2", ["base", "v1"], probes, base, "base").outcome == "active"
    assert active <= 200 * ALPHA + 1


@pytest.mark.parametrize(
    ("level", "freedom", "value"), [(0.0005, 11, 4.437), (0.0005, 30, 3.646), (0.001, 15, 3.733), (0.0005, 120, 3.373), (0.025, 20, 2.086)]
)
def test_the_quantile_is_that_of_the_tables(level: float, freedom: int, value: float) -> None:
    assert quantile(level, freedom) == pytest.approx(value, rel=0.003)
