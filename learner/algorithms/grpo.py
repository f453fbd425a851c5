"""GRPO, Group Relative Policy Optimization (2402.03300). Learns from groups: answers to one prompt and their rewards R.

A = (R - mean) / (std + eps)                         within the group, std with n - 1
r = pi / pi_old                                      per token
w = min(pi_old / pi_engine, is_cap)                  per token, no gradient; not in the paper (docs/learner-math.md)
L = - mean over sequences of the mean over tokens of
        w min(r A, clip(r, 1 - eps_low, 1 + eps_high) A) - beta (e^d - d - 1),      d = log pi_ref - log pi
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from learner.algorithms import within
from learner.algorithms.base import Algorithm, Examined, Targets, groups_that_teach
from learner.algorithms.named import estimator, policy_loss
from learner.algorithms.terms import PolicyLoss, Terms, importance, k3, measured, sequence_mean
from ratchet.config.algorithm import AlgorithmConfig
from ratchet.types import Example

if TYPE_CHECKING:
    from torch import Tensor

    from learner.batch import Batch


class GrpoConfig(AlgorithmConfig):
    """2402.03300 with token-level truncated importance sampling against the engine's log-probs."""

    type: Literal["grpo"] = "grpo"
    """The algorithm."""
    beta: float = Field(default=0.1, ge=0)
    """Weight of the KL to the base; 0 computes no reference."""
    eps_low: float = Field(default=0.2, gt=0)
    """The importance ratio is clipped below 1 - eps_low."""
    eps_high: float = Field(default=0.2, gt=0)
    """The importance ratio is clipped above 1 + eps_high."""
    is_cap: float = Field(default=2.0, gt=0)
    """Cap C of the importance weight min(pi_learner / pi_engine, C)."""
    scale: Literal["std", "none"] = "std"
    """Whether a group's advantages are divided by its standard deviation."""

    def make(self) -> Grpo:
        return Grpo(self)


class Grpo(Algorithm[GrpoConfig]):
    """Groups in, advantages within each group, a clipped ratio with a KL term out."""

    kinds = {"group": "fresh"}

    @property
    def uses_reference(self) -> bool:
        return self.config.beta > 0

    def examine(self, examples: list[Example], window: int) -> Examined:
        return groups_that_teach(examples, window)

    def targets(self, batch: Batch, state: dict[str, Any]) -> Targets:
        return Targets(advantages(batch.rewards, batch.groups, scale=self.config.scale))

    def loss(self, terms: Terms) -> PolicyLoss:
        config = self.config
        return loss(terms, beta=config.beta, eps_low=config.eps_low, eps_high=config.eps_high, is_cap=config.is_cap)


@estimator("grpo")
def advantages(
    rewards: Tensor, group: Tensor, lengths: Tensor | None = None, *, scale: Literal["std", "none"] = "std", eps: float = 1e-6
) -> Tensor:
    """(R - mean) / (std + eps) [B]; `scale="none"`: R - mean. Section 4.1; std with n - 1 as TRL and verl take it.

    ValueError: another `scale`.
    """
    if scale not in ("std", "none"):
        raise ValueError(f"scale is 'std' or 'none', not {scale!r}")
    centred = rewards - within.mean(rewards, group)[group]
    if scale == "std":
        n = within.count(group).to(rewards.dtype)
        variance = within.total(centred.square(), group) / (n - 1).clamp(min=1)
        centred = centred / (variance.sqrt()[group] + eps)
    return within.zero_if_equal(centred, rewards, group)


@policy_loss("grpo")
def loss(terms: Terms, *, beta: float = 0.1, eps_low: float = 0.2, eps_high: float = 0.2, is_cap: float = 2.0) -> PolicyLoss:
    """Equations 3 and 4. The KL term is multiplied neither by r nor by w. Asymmetric clip: 2503.14476."""
    import torch

    ratio = terms.ratio
    straight, clipped = ratio * terms.advantages, ratio.clamp(1 - eps_low, 1 + eps_high) * terms.advantages
    weight, kl = importance(terms, is_cap), k3(terms)
    return PolicyLoss(
        sequence_mean(beta * kl - weight * torch.minimum(straight, clipped), terms),
        measured(terms, kl=kl, is_weight=weight, clip_fraction=clipped < straight, capped_fraction=weight >= is_cap),
    )
