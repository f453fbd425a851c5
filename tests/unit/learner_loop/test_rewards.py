"""Rewards from Python functions: a number, or a counted reason there is none."""

from __future__ import annotations

import pytest

from learner.rewards.python import Scorer, Unscored
from ratchet.config import PythonRewardConfig
from ratchet.errors import ConfigError

ASKED = [{"role": "user", "content": "2.5"}]


def scorer(*parts: tuple[str, float]) -> Scorer:
    return Scorer([PythonRewardConfig(path=f"tests.support.reward_functions:{name}", weight=weight) for name, weight in parts])


def test_a_reward_is_the_weighted_sum_of_its_functions() -> None:
    assert scorer(("echo", 2.0), ("constant", -0.5)).score(ASKED, "any") == 2.0 * 2.5 - 0.5


def test_a_function_that_raises_leaves_the_answer_unscored() -> None:
    with pytest.raises(Unscored, match="KeyError") as caught:
        scorer(("constant", 1.0), ("raising", 1.0)).score(ASKED, "any")
    assert caught.value.reason == "reward_raised"


def test_a_number_that_is_not_finite_is_no_reward() -> None:
    with pytest.raises(Unscored) as caught:
        scorer(("nan", 1.0)).score(ASKED, "any")
    assert caught.value.reason == "reward_not_finite"


def test_one_unscored_answer_leaves_its_whole_group_unscored() -> None:
    found = scorer(("early_letters", 1.0))
    assert found.score_all(ASKED, ["AZ", "ZZ"]) == [0.5, 0.0]
    with pytest.raises(Unscored):
        scorer(("early_letters", 1.0), ("nan", 0.0)).score_all(ASKED, ["AZ"])


def test_missing_is_none_and_never_zero() -> None:
    assert scorer(("raising", 1.0)).try_score(ASKED, "any") is None
    assert scorer(("constant", 1.0)).try_score(ASKED, "any") == 1.0


@pytest.mark.parametrize(
    "path", ["tests.nowhere:f", "tests.support.reward_functions:absent", "tests.support.reward_functions:not_a_function"]
)
def test_a_reward_that_cannot_be_called_is_a_wrong_configuration(path: str) -> None:
    with pytest.raises(ConfigError, match="reward tests"):
        Scorer([PythonRewardConfig(path=path)])


def test_a_policy_without_rewards_has_no_scorer() -> None:
    assert not Scorer([]) and scorer(("constant", 1.0))
