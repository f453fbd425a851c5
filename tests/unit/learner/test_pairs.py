"""An algorithm of another family on the same seam: pairs instead of groups, a loss that compares two answers, a reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from learner import update
from learner.algorithms.base import Algorithm, Examined, Targets, sort_out
from learner.algorithms.terms import PolicyLoss, Terms
from learner.batch import Batch
from learner.examples import Sequence
from learner.policy.model import Policy
from learner.policy.optim import AdamW
from ratchet.config import AlgorithmConfig
from ratchet.types import Example, Signal
from tests.unit.learner import tiny_policy


class PairsConfig(AlgorithmConfig):
    type: Literal["pairs"] = "pairs"
    beta: float = 0.5

    def make(self) -> Pairs:
        return Pairs(self)


class Pairs(Algorithm[PairsConfig]):
    """DPO, 2305.18290 equation 7: - log sigmoid(beta (delta_chosen - delta_rejected)), delta = log pi - log pi_ref."""

    kinds = {"pair": "any"}
    together = True
    uses_reference = True

    def examine(self, examples: list[Example], window: int) -> Examined:
        return sort_out(examples, lambda pair: "" if len(pair.interactions) == 2 else "incomplete")

    def sequences(self, example: Example, place: int) -> list[Sequence]:
        return [Sequence(place, item.prompt_ids, item.choices[0].token_ids, []) for item in example.interactions]

    def targets(self, batch: Batch, state: dict[str, Any]) -> Targets:
        return Targets(torch.tensor([1.0, -1.0]).repeat(len(batch.sequences) // 2))

    def loss(self, terms: Terms) -> PolicyLoss:
        assert terms.ref_log_probs is not None and terms.rollout_log_probs is None
        delta = ((terms.log_probs - terms.ref_log_probs) * terms.advantages * terms.mask).sum(1)
        losses = -torch.nn.functional.logsigmoid(self.config.beta * (delta[0::2] + delta[1::2]))
        return PolicyLoss(losses.sum() / (terms.whole.sequences / 2), {})


def pair(scorer: Policy, number: int) -> Example:
    chosen, rejected = (tiny_policy.group(scorer, 2 * number + side, [0.0]).interactions[0] for side in (0, 1))
    rejected.prompt_ids = chosen.prompt_ids
    preference = {"target": chosen.id, "choice": 0, "over": rejected.id, "over_choice": 0}
    return Example(f"p{number}", "pair", [chosen, rejected], [Signal(chosen.id, 0, "preference", preference)])


def margin(policy: Policy, example: Example) -> float:
    chosen, rejected = (
        float(policy.log_probs(item.prompt_ids, [item.choices[0].token_ids])[0].sum().detach()) for item in example.interactions
    )
    return chosen - rejected


@pytest.mark.parametrize("budget", [1, 40, 10_000])
def test_a_step_on_pairs_raises_the_chosen_over_the_rejected_however_it_is_cut(budget: int, base: Path) -> None:
    policy = tiny_policy.load(base)
    examples = [pair(policy, number) for number in range(3)]
    before = [margin(policy, example) for example in examples]
    moving = AdamW(policy.parameters(), learning_rate=0.01)
    first = update.step(policy, moving, examples, PairsConfig().make(), token_budget=budget)
    assert first.loss == pytest.approx(0.6931, abs=1e-3), "the policy is still the reference: log 2"
    update.step(policy, moving, examples, PairsConfig().make(), token_budget=budget)
    assert all(margin(policy, example) > was for example, was in zip(examples, before, strict=True))
