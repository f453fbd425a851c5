from __future__ import annotations

import pytest
import torch

from learner import batch
from learner.batch import Batch
from learner.examples import Sequence


def sequence(example: int, prompt: list[int], answer: list[int], temperature: float = 1.0, reward: float | None = None) -> Sequence:
    return Sequence(example, prompt, answer, [-1.0] * len(answer), temperature, reward)


def test_a_batch_lays_its_sequences_out_in_order() -> None:
    found = Batch([sequence(4, [1], [2, 3], reward=0.5), sequence(4, [1], [2], reward=1.0), sequence(9, [5], [6, 7, 8], reward=0.1)])
    assert found.rewards.tolist() == [0.5, 1.0, 0.1] and found.rewards.dtype == torch.float64
    assert found.groups.tolist() == [0, 0, 1]
    assert found.lengths.tolist() == [2, 1, 3]
    assert found.mask.tolist() == [[True, True, False], [True, False, False], [True, True, True]]
    assert (found.whole.sequences, found.whole.tokens, found.whole.longest) == (3, 6, 3)


def test_a_missing_reward_is_not_zero() -> None:
    with pytest.raises(ValueError, match="no reward of its own"):
        _ = Batch([sequence(0, [1], [2], reward=0.0), sequence(0, [1], [3])]).rewards


def test_micro_batches_keep_to_the_budget_and_count_a_shared_prompt_once() -> None:
    rows = [sequence(0, [1] * 10, [2] * 5) for _ in range(4)]
    assert [len(part) for part in batch.micro_batches(rows, 20)] == [2, 2]
    assert [len(part) for part in batch.micro_batches(rows, 30)] == [4]
    assert [len(part) for part in batch.micro_batches(rows, 1)] == [1, 1, 1, 1]


def test_the_sequences_of_an_example_stay_together_where_they_must() -> None:
    rows = [sequence(n // 2, [1] * 10, [2] * 5) for n in range(6)]
    assert [len(part) for part in batch.micro_batches(rows, 30, together=True)] == [2, 2, 2]
    assert [len(part) for part in batch.micro_batches(rows, 40, together=True)] == [4, 2]
    assert [len(part) for part in batch.micro_batches(rows, 1, together=True)] == [2, 2, 2]


def test_micro_batches_count_the_prompt_of_each_group() -> None:
    rows = [sequence(n, [1] * 10, [2] * 5) for n in range(4)]
    assert [len(part) for part in batch.micro_batches(rows, 30)] == [2, 2]
    assert batch.micro_batches([], 30) == []


def test_a_prompt_is_shared_only_within_an_example_at_one_temperature() -> None:
    apart = [sequence(0, [1, 2], [3]), sequence(1, [1, 2], [4]), sequence(1, [1, 2], [5], 0.5), sequence(1, [1, 9], [6], 0.5)]
    assert batch.pack(apart).ids.tolist() == [[1, 2, 1, 2, 1, 2, 1, 9]]
    assert [len(part) for part in batch.micro_batches(apart, 6)] == [2, 2]
    assert batch.pack([sequence(0, [1, 2], [3]), sequence(0, [1, 2], [4])]).ids.tolist() == [[1, 2]]


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
