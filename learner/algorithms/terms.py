"""The inputs of a loss: the log-probs of a micro-batch and the constants of its batch; and the functions that losses share.

r = pi / pi_old, A advantage, w importance weight, d = log pi_ref - log pi; log-probs in nats. docs/learner-math.md has the
formulas and says which choice is made where implementations differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PolicyLoss:
    """`loss`: a scalar with its graph. `metrics`: plain numbers, means over answer tokens. Both are the micro-batch's share."""

    loss: Tensor
    metrics: dict[str, float]


@dataclass(frozen=True)
class Whole:
    """Constants of a whole batch: its sequences, its answer tokens, the tokens of its longest answer, the algorithm's own."""

    sequences: int
    tokens: int
    longest: int
    constants: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Terms:
    """A micro-batch of b sequences, padded to its longest answer: [b, T] each, zero outside `mask`.

    Only `log_probs` has a gradient. `rollout_log_probs` are the engine's at sampling (NaN for an answer that was not sampled).
    `mask` has the log-probs' dtype.
    """

    log_probs: Tensor
    old_log_probs: Tensor
    advantages: Tensor
    mask: Tensor
    ref_log_probs: Tensor | None
    rollout_log_probs: Tensor | None
    whole: Whole

    @property
    def ratio(self) -> Tensor:
        """r = pi / pi_old."""
        return (self.log_probs - self.old_log_probs).exp()


def importance(terms: Terms, cap: float) -> Tensor:
    """w = min(pi_old / pi_engine, cap), no gradient: corrects for the engine's numerics, and for staleness. 1 without the engine's."""
    import torch

    if terms.rollout_log_probs is None:
        return torch.ones_like(terms.log_probs)
    return (terms.old_log_probs - terms.rollout_log_probs).exp().clamp(max=cap)


def k3(terms: Terms) -> Tensor:
    """e^d - d - 1, an estimate of KL(pi || pi_ref) that is never negative. Zero without a reference."""
    import torch

    if terms.ref_log_probs is None:
        return torch.zeros_like(terms.log_probs)
    d = terms.ref_log_probs - terms.log_probs
    return torch.expm1(d) - d


# Aggregations: each is the mean of the micro-batch times its share of the batch. Dividing by the batch's constant at once is the
# same sum, rounded otherwise: then an adapter's bytes would not be those that earlier versions wrote.


def sequence_mean(values: Tensor, terms: Terms) -> Tensor:
    """The mean over the tokens of each sequence, then over all sequences of the batch."""
    each = (values * terms.mask).sum(1) / terms.mask.sum(1).clamp(min=1)
    return each.mean() * (len(each) / terms.whole.sequences)


def fixed_mean(values: Tensor, terms: Terms, length: int) -> Tensor:
    """The sum over all tokens of the batch / (sequences x `length`), whatever the lengths of the answers."""
    rows = len(terms.mask)
    return (values * terms.mask).sum() / (rows * length) * (rows / terms.whole.sequences)


def token_mean(values: Tensor, terms: Terms) -> Tensor:
    """The mean over all tokens of the batch: long answers weigh more."""
    return (values * terms.mask).sum() / terms.whole.tokens


def measured(terms: Terms, **values: Tensor) -> dict[str, float]:
    """The mean of each of `values` [b, T] over the answer tokens of the batch: this micro-batch's share of it."""
    return {key: float(token_mean(value.detach(), terms)) for key, value in values.items()}
