"""RLOO, REINFORCE with a leave-one-out baseline (2402.14740): its advantages. The algorithm itself is not built yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from learner.algorithms import within
from learner.algorithms.named import estimator

if TYPE_CHECKING:
    from torch import Tensor


@estimator("rloo")
def advantages(rewards: Tensor, group: Tensor, lengths: Tensor | None = None) -> Tensor:
    """R - mean of the *other* answers of its group = n / (n - 1) (R - mean) [B]. Equation 8."""
    n = within.count(group).to(rewards.dtype)
    centred = rewards - within.mean(rewards, group)[group]
    return within.zero_if_equal((n / (n - 1).clamp(min=1))[group] * centred, rewards, group)
