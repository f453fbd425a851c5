"""The paired sequential test: its capital is the source's, its error rates are what it says, exactly where they can be counted."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest

from learner.gate.sequential import LARGEST_BET, Anchor, Answer, Bet, Comparison, anchors, spent, together


def capital(values: Sequence[float], null: float) -> float:
    """The product of 2010.09686 written out, nothing kept between values."""
    product = 1.0
    for i, value in enumerate(values):
        before = values[:i]
        means = [(0.5 + sum(before[: j + 1])) / (j + 2) for j in range(i)]
        mean = (0.5 + sum(before)) / (i + 1)
        variance = (0.25 + sum((v - m) ** 2 for v, m in zip(before, means, strict=True))) / (i + 1)
        stake = (mean - null) / (variance + (mean - null) ** 2)
        product *= 1 + min(max(stake, 0.0), LARGEST_BET / null) * (value - null)
    return product


def test_the_capital_is_the_product_of_the_source() -> None:
    values = [0.3, 0.9, 0.55, 1.0, 0.8, 0.0, 0.7, 0.95]
    bet = Bet(0.45)
    for i, value in enumerate(values):
        bet.add(value)
        assert math.exp(bet.log_e) == pytest.approx(capital(values[: i + 1], 0.45), rel=1e-12)


@pytest.mark.parametrize("null", [0.2, 0.45, 0.5, 0.7])
def test_a_fair_game_is_worth_one_and_rarely_reaches_four(null: float) -> None:
    """Every sequence of 12 coins, each with its chance: the mean capital is 1 and the chance ever to reach 4 at most 1/4."""
    expected, reached = 0.0, 0.0
    for coins in itertools.product((0.0, 1.0), repeat=12):
        chance = math.prod(null if coin else 1 - null for coin in coins)
        bet, highest = Bet(null), 0.0
        for coin in coins:
            bet.add(coin)
            highest = max(highest, bet.log_e)
        expected += chance * math.exp(bet.log_e)
        reached += chance * (highest >= math.log(4))
    assert expected == pytest.approx(1.0, abs=1e-9)
    assert 0 < reached <= 1 / 4


def test_nobody_bets_that_the_mean_is_lower() -> None:
    bet = Bet(0.5)
    for _ in range(50):
        bet.add(0.0)
    assert bet.log_e == 0.0


def run(differences: Sequence[float], **bounds: float) -> Comparison:
    comparison = Comparison(**({"delta": 0.1, "alpha": 0.05} | bounds))  # type: ignore[arg-type]
    for difference in differences:
        comparison.add(difference)
    return comparison


@pytest.mark.parametrize(
    ("differences", "answer"),
    [
        ([0.3, 0.1] * 40, "pass"),
        ([0.2, -0.2] * 150, "pass"),
        ([-0.3, -0.1] * 40, "worse"),
        ([0.1, -0.1] * 3, "undecided"),
        ([], "undecided"),
    ],
)
def test_the_answer_follows_the_differences(differences: list[float], answer: Answer) -> None:
    assert run(differences).answer == answer


def test_the_first_answer_stays_whatever_comes_after_it() -> None:
    assert run([0.5] * 60 + [-0.9] * 400).answer == "pass"
    assert run([-0.5] * 60 + [0.9] * 400).answer == "worse"


def test_an_older_anchor_forgives_what_is_within_the_allowance() -> None:
    """A mean of -0.05 is worse than the live version, and tolerable against the base."""
    differences = [0.1, -0.2] * 200
    assert run(differences, alpha=1e-9).answer == "worse"
    assert run(differences, ceiling=-0.1).answer == "pass"


def test_wide_rewards_are_scaled() -> None:
    assert run([30.0, 10.0] * 40, delta=10, width=100).answer == run([0.3, 0.1] * 40).answer == "pass"


def test_its_mean_is_that_of_its_pairs() -> None:
    assert run([]).mean is None
    assert run([0.2, -0.1, 0.2]).mean == pytest.approx(0.1)


@pytest.mark.parametrize("bad", [1.5, -1.01, math.nan, math.inf])
def test_a_difference_beyond_the_width_is_an_error(bad: float) -> None:
    with pytest.raises(ValueError, match="not within"):
        run([bad])


@pytest.mark.parametrize(
    "bounds", [{"delta": 0.0}, {"delta": 2.0}, {"ceiling": -0.2}, {"alpha": 0.0}, {"alpha_worse": 1.0}, {"delta": math.nan}]
)
def test_bounds_without_meaning_are_an_error(bounds: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="do not make a test"):
        run([], **bounds)


@pytest.mark.parametrize(
    ("answers", "answer"),
    [(["pass", "pass"], "pass"), (["pass", "undecided"], "undecided"), (["pass", "worse"], "worse"), (["undecided", "worse"], "worse")],
)
def test_all_must_pass_and_one_worse_is_enough(answers: list[Answer], answer: Answer) -> None:
    assert together(answers) == answer


def test_the_error_rate_of_all_examinations_adds_up_to_alpha() -> None:
    shares = [spent(0.05, k) for k in range(1, 10_000)]
    assert shares == sorted(shares, reverse=True)
    assert 0.0499 < sum(shares) <= 0.05


def test_the_anchors_are_live_best_and_base_each_once() -> None:
    assert anchors(0, 0, 0.1) == [Anchor(0, 0.0)]
    assert anchors(7, 7, 0.1) == [Anchor(7, 0.0), Anchor(0, -0.1)]
    assert anchors(7, 4, 0.1) == [Anchor(7, 0.0), Anchor(0, -0.1), Anchor(4, -0.1)]
