"""Which answers an example holds, and what keeps it from being learned from."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from learner.examples import Sequence, answers, defect, flat, mean_reward, rated
from ratchet.types import Example, Interaction, Sampling, Signal
from tests.support.stores import group_of, interaction


def lone(item: Interaction, choice: int, value: Any) -> Example:
    return Example(f"{item.id}:{choice}:reward", "lone", [item], [Signal(item.id, choice, "reward", value)])


def changed(change: Callable[[Example], object]) -> Example:
    group = group_of(interaction(2), [0.0, 1.0])
    change(group)
    return group


def test_the_answers_of_a_group_come_in_order_with_their_rewards() -> None:
    item = interaction(3, sampling=Sampling(temperature=0.7))
    assert answers(group_of(item, [0.5, 1.0, 0.0]), 4) == [
        Sequence(4, item.prompt_ids, choice.token_ids, choice.logprobs, 0.7, reward)
        for choice, reward in zip(item.choices, [0.5, 1.0, 0.0], strict=True)
    ]


@pytest.mark.parametrize(("value", "reward"), [(0.25, 0.25), (True, 1.0), (False, 0.0)])
def test_a_lone_example_is_the_one_answer_that_was_rated(value: Any, reward: float) -> None:
    item = interaction(3)
    assert rated(lone(item, 1, value)) == [(item, item.choices[1], reward)]
    assert defect(lone(item, 1, value), 100) == ""


def test_a_whole_group_teaches() -> None:
    assert defect(group_of(interaction(2), [0.0, 1.0]), 100) == ""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda g: g.signals.pop(), "incomplete"),
        (lambda g: g.signals.clear(), "incomplete"),
        (lambda g: setattr(g.signals[1], "choice", 7), "incomplete"),
        (lambda g: setattr(g.signals[1], "value", "better"), "incomplete"),
        (lambda g: g.interactions[0].choices[1].logprobs.pop(), "incomplete"),
        (lambda g: (g.interactions[0].choices[0].logprobs.clear(), g.interactions[0].choices[0].token_ids.clear()), "incomplete"),
        (lambda g: g.interactions[0].prompt_ids.clear(), "incomplete"),
        (lambda g: g.interactions.clear(), "incomplete"),
        (lambda g: setattr(g.interactions[0], "untrainable", "top_p"), "not_sampled"),
        (lambda g: setattr(g.interactions[0], "sampling", Sampling(temperature=0.0)), "not_sampled"),
        (lambda g: setattr(g.signals[0], "value", math.nan), "not_finite"),
        (lambda g: g.interactions[0].choices[1].logprobs.__setitem__(0, -math.inf), "not_finite"),
    ],
)
def test_what_cannot_be_learned_from_has_a_reason(change: Callable[[Example], object], reason: str) -> None:
    assert defect(changed(change), 100) == reason


def test_an_answer_fits_if_all_but_its_last_token_do() -> None:
    group = group_of(interaction(2, prompt_ids=[1] * 8), [0.0, 1.0])  # answers of three tokens
    assert (defect(group, 10), defect(group, 9)) == ("", "too_long")


def test_rewards_are_compared_not_their_deviation() -> None:
    assert flat(group_of(interaction(3), [0.1, 0.1, 0.1]))
    assert not flat(group_of(interaction(2), [0.0, 1e-300]))


def test_the_mean_reward_counts_groups_that_teach_nothing_and_no_missing_reward() -> None:
    groups = [group_of(interaction(2), [0.0, 1.0]), group_of(interaction(2), [1.0, 1.0]), group_of(interaction(2), [math.nan])]
    assert mean_reward(groups) == 0.75
    assert mean_reward([]) is None
