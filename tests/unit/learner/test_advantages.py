from __future__ import annotations

import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.advantages import estimate
from learner.algorithms.named import estimator

GROUP_RELATIVE = ["dr_grpo", "grpo", "rloo"]
REWARDS = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.5, 2.0, -1.0], dtype=torch.float64)
GROUPS = torch.tensor([9, 9, 4, 9, 4, 4, 9])


def in_group(values: torch.Tensor, group: int) -> list[float]:
    return [float(v) for v, g in zip(values, GROUPS, strict=True) if int(g) == group]


@pytest.mark.parametrize("group", [4, 9])
def test_grpo_is_the_reward_standardised_within_its_group(group: int) -> None:
    rewards = in_group(REWARDS, group)
    mean, std = statistics.fmean(rewards), statistics.stdev(rewards)
    expected = [(r - mean) / (std + 1e-6) for r in rewards]
    assert in_group(estimate("grpo", REWARDS, GROUPS), group) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("name", "params"), [("dr_grpo", {}), ("grpo", {"scale": "none"})])
def test_without_scaling_the_advantage_is_the_distance_to_the_group_mean(name: str, params: dict[str, str]) -> None:
    rewards = in_group(REWARDS, 9)
    expected = [r - statistics.fmean(rewards) for r in rewards]
    assert in_group(estimate(name, REWARDS, GROUPS, **params), 9) == pytest.approx(expected, abs=1e-12)


def test_rloo_compares_with_the_mean_of_the_other_answers() -> None:
    rewards = in_group(REWARDS, 9)
    expected = [r - statistics.fmean(rewards[:i] + rewards[i + 1 :]) for i, r in enumerate(rewards)]
    assert in_group(estimate("rloo", REWARDS, GROUPS), 9) == pytest.approx(expected, abs=1e-12)


def test_eps_is_added_to_the_deviation() -> None:
    rewards, groups = torch.tensor([0.0, 1.0], dtype=torch.float64), torch.tensor([0, 0])
    assert float(estimate("grpo", rewards, groups, eps=1.0)[1]) == pytest.approx(0.5 / (0.5**0.5 + 1))


@pytest.mark.parametrize("name", GROUP_RELATIVE)
def test_equal_rewards_whose_mean_rounds_give_exactly_zero(name: str) -> None:
    rewards = torch.full((3,), 0.1, dtype=torch.float32)
    assert estimate(name, rewards, torch.zeros(3, dtype=torch.int64)).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("name", GROUP_RELATIVE)
def test_a_group_of_one_gives_zero(name: str) -> None:
    assert estimate(name, torch.tensor([3.0, 1.0, 2.0]), torch.tensor([5, 6, 6]))[0] == 0


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no advantage estimator 'gpro'; known: .*dr_grpo, grpo, .*rloo"):
        estimate("gpro", REWARDS, GROUPS)


def test_an_estimator_that_compares_nothing_within_a_group_keeps_what_it_gives_equal_rewards() -> None:
    @estimator("test_reward_itself")
    def reward(rewards: torch.Tensor, group: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        return rewards

    assert estimate("test_reward_itself", torch.tensor([1.0, 1.0, 3.0]), torch.tensor([0, 0, 1])).tolist() == [1.0, 1.0, 3.0]


def test_an_unknown_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="scale is 'std' or 'none'"):
        estimate("grpo", REWARDS, GROUPS, scale="batch")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_reward_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        estimate("grpo", torch.tensor([bad, 1.0]), torch.tensor([0, 0]))


@pytest.mark.parametrize("groups", [torch.tensor([0]), torch.tensor([[0, 0]])])
def test_shapes_that_do_not_match_are_refused(groups: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="one length"):
        estimate("grpo", torch.tensor([1.0, 0.0]), groups)


@given(st.lists(st.tuples(st.floats(-100, 100), st.integers(0, 3)), min_size=1, max_size=20))
def test_any_rewards_give_finite_advantages_that_sum_to_zero_in_each_group(rows: list[tuple[float, int]]) -> None:
    groups = torch.tensor([g for _, g in rows])
    values = estimate("grpo", torch.tensor([r for r, _ in rows], dtype=torch.float64), groups)
    assert bool(torch.isfinite(values).all())
    for group in groups.unique():
        assert float(values[groups == group].sum()) == pytest.approx(0, abs=1e-6)
