"""REINFORCE with a running baseline b (Williams 1992). Learns from single answers, each with a reward R of its own.

A = R - b                               then b moves by `rate` towards the mean R of the step
w = min(pi_old / pi_engine, is_cap)     per token, no gradient
L = - mean over all tokens of w A log pi
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from learner.algorithms.base import Algorithm, Examined, Targets, sort_out
from learner.algorithms.terms import PolicyLoss, Terms, importance, measured, token_mean
from learner.examples import defect
from ratchet.config import AlgorithmConfig
from ratchet.types import Example

if TYPE_CHECKING:
    from learner.batch import Batch


class EmaReinforceConfig(AlgorithmConfig):
    type: Literal["ema_reinforce"] = "ema_reinforce"
    """The algorithm."""
    rate: float = Field(default=0.1, gt=0, le=1)
    """How far the baseline moves in a step; 1: to the mean reward of that step."""
    is_cap: float = Field(default=2.0, gt=0)
    """Cap of the importance weight."""

    def make(self) -> EmaReinforce:
        return EmaReinforce(self)


class EmaReinforce(Algorithm[EmaReinforceConfig]):
    kinds = {"lone": "fresh"}

    def examine(self, examples: list[Example], window: int) -> Examined:
        return sort_out(examples, lambda one: defect(one, window) or self._of_another_metric(one))

    def targets(self, batch: Batch, state: dict[str, Any]) -> Targets:
        mean = float(batch.rewards.mean())
        baseline = state.get("baseline", mean)
        return Targets(batch.rewards - baseline, {"baseline": baseline + self.config.rate * (mean - baseline)})

    def loss(self, terms: Terms) -> PolicyLoss:
        weight = importance(terms, self.config.is_cap)
        return PolicyLoss(-token_mean(weight * terms.advantages * terms.log_probs, terms), measured(terms, is_weight=weight))

    def _of_another_metric(self, example: Example) -> str:
        return "" if example.signals[0].metric == self.config.metric else "other_metric"
