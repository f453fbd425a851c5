from __future__ import annotations

import msgspec
import pytest
import torch

from learner import batch
from learner.batch import Sequence
from learner.model import Policy
from ratchet.types import Example, Sampling
from tests.unit.learner import tiny


def sequence(group: int, prompt: list[int], answer: list[int], temperature: float = 1.0) -> Sequence:
    return Sequence(group, prompt, answer, [-1.0] * len(answer), temperature, 0.0)


def broken(group: Example, **changes: object) -> Example:
    copy = msgspec.convert(msgspec.to_builtins(group), Example)
    for name, value in changes.items():
        setattr(copy.interactions[0], name, value)
    return copy


def test_a_batch_keeps_the_order_of_its_groups_and_answers(policy: Policy) -> None:
    groups = [tiny.group(policy, n, [0.0, 1.0, 0.5]) for n in (5, 1, 3)]
    found = batch.build(groups, "grpo")
    assert [s.token_ids for s in found.sequences] == [c.token_ids for g in groups for c in g.interactions[0].choices]
    assert [s.group for s in found.sequences] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert found.used == ["g5", "g1", "g3"]


def test_each_answer_carries_its_advantage_and_the_engines_log_probs(policy: Policy) -> None:
    group = tiny.group(policy, 0, [0.0, 1.0])
    first, second = batch.build([group], "grpo", scale="none").sequences
    assert (first.advantage, second.advantage) == (-0.5, 0.5)
    assert second.logprobs == group.interactions[0].choices[1].logprobs


def test_groups_without_spread_are_left_out_and_counted_but_their_reward_is_in_the_mean(policy: Policy) -> None:
    found = batch.build([tiny.group(policy, 1, [1.0, 1.0]), tiny.group(policy, 2, [0.0, 1.0])], "grpo")
    assert (found.used, found.zero_spread, found.skipped) == (["g2"], ["g1"], [])
    assert found.reward == 0.75
    assert len(found.sequences) == 2


def test_a_group_that_misses_ids_log_probs_or_rewards_is_skipped_and_counted(policy: Policy) -> None:
    group = tiny.group(policy, 1, [0.0, 1.0])
    short = broken(group)
    short.interactions[0].choices[1].logprobs.pop()
    empty = broken(group)
    empty.interactions[0].choices[0].token_ids = []
    empty.interactions[0].choices[0].logprobs = []
    unscored = broken(group)
    unscored.signals.pop()
    lost = [short, empty, unscored, broken(group, untrainable="top_p"), broken(group, prompt_ids=[]), broken(group, choices=[])]
    found = batch.build(lost, "grpo")
    assert (found.sequences, found.used, found.skipped) == ([], [], ["g1"] * 6)


def test_a_number_that_is_not_finite_and_a_greedy_answer_are_skipped_too(policy: Policy) -> None:
    group = tiny.group(policy, 1, [0.0, 1.0])
    odd = broken(group)
    odd.interactions[0].choices[1].logprobs[0] = float("-inf")
    scored = broken(group)
    scored.signals[0].value = float("nan")
    assert batch.build([odd, scored, broken(group, sampling=Sampling(temperature=0.0))], "grpo").skipped == ["g1"] * 3


def test_micro_batches_keep_to_the_budget_and_count_a_shared_prompt_once() -> None:
    rows = [sequence(0, [1] * 10, [2] * 5) for _ in range(4)]
    assert [len(part) for part in batch.micro_batches(rows, 20)] == [2, 2]
    assert [len(part) for part in batch.micro_batches(rows, 30)] == [4]
    assert [len(part) for part in batch.micro_batches(rows, 1)] == [1, 1, 1, 1]


def test_micro_batches_count_the_prompt_of_each_group() -> None:
    rows = [sequence(n, [1] * 10, [2] * 5) for n in range(4)]
    assert [len(part) for part in batch.micro_batches(rows, 30)] == [2, 2]
    assert batch.micro_batches([], 30) == []


def test_a_packed_row_holds_each_prompt_once_and_no_padding() -> None:
    packed = batch.pack([sequence(0, [1, 2], [3, 4, 5]), sequence(0, [1, 2], [6]), sequence(1, [7], [8, 9])])
    assert packed.ids.tolist() == [[1, 2, 3, 4, 7, 8]]
    assert packed.positions.tolist() == [[0, 1, 2, 3, 0, 1]]
    assert packed.predictors.tolist() == [1, 2, 3, 4, 5]
    assert packed.target.tolist() == [3, 4, 5, 6, 8, 9]
    assert packed.source.tolist() == [0, 1, 2, 0, 3, 4]
    assert packed.mask.tolist() == [[True, True, True], [True, False, False], [True, True, False]]


def test_an_answer_sees_its_prompt_and_itself_and_nothing_else() -> None:
    packed = batch.pack([sequence(0, [1], [2, 3, 4]), sequence(0, [1], [5, 6, 7]), sequence(1, [8], [9, 9])])
    seen = ["".join("x" if cell else "." for cell in row) for row in packed.attend[0, 0].tolist()]
    assert seen == ["x......", "xx.....", "xxx....", "x..x...", "x..xx..", ".....x.", ".....xx"]


def test_each_predicted_row_has_its_groups_temperature() -> None:
    packed = batch.pack([sequence(0, [1], [2, 3], 0.5), sequence(1, [4], [5], 2.0)])
    assert packed.temperature.tolist() == [0.5, 0.5, 2.0]


def test_values_of_answer_tokens_are_laid_out_by_row_and_column() -> None:
    packed = batch.pack([sequence(0, [1], [2, 3]), sequence(0, [1], [4])])
    assert packed.spread(torch.tensor([1.0, 2.0, 3.0])).tolist() == [[1.0, 2.0], [3.0, 0.0]]


@pytest.mark.parametrize("rows", [[], [sequence(0, [], [1])], [sequence(0, [1], [])]])
def test_nothing_to_score_is_refused(rows: list[Sequence]) -> None:
    with pytest.raises(ValueError, match="a prompt and an answer"):
        batch.pack(rows)
