"""The gate's promised error rates, on fewer simulated candidates than `bench/gate.py` takes for the table."""

from __future__ import annotations

import random
import statistics

import pytest

from bench import gate

RUNS = 60


@pytest.mark.parametrize("examination", [1, 50])
def test_an_equal_candidate_passes(examination: int) -> None:
    found = gate.candidates(0.0, runs=RUNS, examination=examination)
    assert found.share("pass") >= 0.8
    assert found.share("worse") <= 0.05


def test_a_better_candidate_passes_soon() -> None:
    found = gate.candidates(0.1, runs=RUNS)
    assert found.share("pass") >= 0.95
    assert statistics.median(o.pairs for o in found.outcomes) < 100


@pytest.mark.parametrize("better", [-0.1, -0.2])
def test_a_candidate_worse_by_delta_or_more_hardly_ever_passes(better: float) -> None:
    assert gate.candidates(better, runs=RUNS).share("pass") <= 0.05


def test_fifty_drifting_versions_together_lose_no_more_than_delta() -> None:
    found = [gate.lineage(0.02, versions=50, seed=seed) for seed in range(3)]
    assert max(f.loss for f in found) <= gate.DELTA
    assert all(f.published > 0 for f in found)


def test_without_anchors_the_same_versions_lose_many_times_that() -> None:
    assert gate.lineage(0.02, versions=50, seed=0, anchored=False).loss > 3 * gate.DELTA


def test_a_hacked_proxy_passes_alone_and_not_beside_a_withheld_scorer() -> None:
    assert gate.candidates(0.1, runs=RUNS).share("pass") >= 0.95
    assert gate.candidates(0.1, withheld=-0.2, runs=RUNS).share("pass") <= 0.05
    assert gate.candidates(0.1, withheld=0.1, runs=RUNS).share("pass") >= 0.95


def test_a_simulated_pair_has_the_stated_mean_and_spread() -> None:
    chance = random.Random(0)
    differences = [gate.reward(chance, 0.6) - gate.reward(chance, 0.5) for _ in range(20_000)]
    assert statistics.mean(differences) == pytest.approx(0.1, abs=0.01)
    assert statistics.stdev(differences) == pytest.approx(gate.SPREAD, abs=0.01)
