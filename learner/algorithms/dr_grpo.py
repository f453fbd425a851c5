"""Dr. GRPO: GRPO without its biases for length and difficulty (2503.20783). Learns from groups: answers to one prompt, rewards R.

    A = R - mean                                         within the group
    r = pi / pi_old                                      per token
    w = min(pi_old / pi_engine, is_cap)                  per token, no gradient; not in the paper (docs/learner-math.md)
    L = - sum over all tokens / (sequences x max_length) of
            w min(r A, clip(r, 1 - eps_low, 1 + eps_high) A) - beta (e^d - d - 1),      d = log pi_ref - log pi

Dividing by the deviation would weigh easy and hard prompts more, dividing by each answer's own length long wrong answers less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from learner.algorithms import within
from learner.algorithms.base import Algorithm, Examined, Targets, groups_that_teach
from learner.algorithms.named import estimator, policy_loss
from learner.algorithms.terms import PolicyLoss, Terms, fixed_mean, importance, k3, measured
from ratchet.config.algorithm import AlgorithmConfig
from ratchet.types import Example

if TYPE_CHECKING:
    from torch import Tensor

    from learner.batch import Batch


class DrGrpoConfig(AlgorithmConfig):
    """2503.20783 with token-level truncated importance sampling against the engine's log-probs."""

    type: Literal["dr_grpo"] = "dr_grpo"
    """The algorithm."""
    beta: float = Field(default=0.1, ge=0)
    """Weight of the KL to the base; 0 computes no reference."""
    eps_low: float = Field(default=0.2, gt=0)
    """The importance ratio is clipped below 1 - eps_low."""
    eps_high: float = Field(default=0.2, gt=0)
    """The importance ratio is clipped above 1 + eps_high."""
    is_cap: float = Field(default=2.0, gt=0)
    """Cap C of the importance weight min(pi_learner / pi_engine, C)."""
    max_length: int = Field(default=64, ge=1)
    """Tokens that every answer's sum is divided by: the limit that answers are sampled under, the same for the whole run."""

    def make(self) -> DrGrpo:
        return DrGrpo(self)


class DrGrpo(Algorithm[DrGrpoConfig]):
    """Groups in, advantages within each group, a clipped ratio with a KL term out."""

    kinds = {"group": "fresh"}

    @property
    def uses_reference(self) -> bool:
        return self.config.beta > 0

    def examine(self, examples: list[Example], window: int) -> Examined:
        return groups_that_teach(examples, window)

    def targets(self, batch: Batch, state: dict[str, Any]) -> Targets:
        return Targets(advantages(batch.rewards, batch.groups))

    def loss(self, terms: Terms) -> PolicyLoss:
        config = self.config
        return loss(
            terms,
            beta=config.beta,
            eps_low=config.eps_low,
            eps_high=config.eps_high,
            is_cap=config.is_cap,
            max_length=config.max_length,
        )


@estimator("dr_grpo")
def advantages(rewards: Tensor, group: Tensor, lengths: Tensor | None = None) -> Tensor:
    """R - mean [B]. Section 3."""
    return within.zero_if_equal(rewards - within.mean(rewards, group)[group], rewards, group)


@policy_loss("dr_grpo")
def loss(
    terms: Terms,
    *,
    beta: float = 0.1,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
    is_cap: float = 2.0,
    max_length: int | None = None,
) -> PolicyLoss:
    """GRPO's objective, summed over all tokens / (sequences x `max_length`); None: the longest answer of the batch.

    `max_length` (tokens) should be a constant of the run, such as the limit that answers are sampled under.
    """
    import torch

    ratio = terms.ratio
    straight, clipped = ratio * terms.advantages, ratio.clamp(1 - eps_low, 1 + eps_high) * terms.advantages
    weight, kl = importance(terms, is_cap), k3(terms)
    return PolicyLoss(
        fixed_mean(beta * kl - weight * torch.minimum(straight, clipped), terms, max_length or terms.whole.longest),
        measured(terms, kl=kl, is_weight=weight, clip_fraction=clipped < straight, capped_fraction=weight >= is_cap),
    )
