"""Advantages by the name of their estimator. The estimators are in `learner.algorithms`; formulas: docs/learner-math.md."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from learner.algorithms.named import ESTIMATORS, find


def estimate(name: str, rewards: Tensor, group_ids: Tensor, *, lengths: Tensor | None = None, **params: Any) -> Tensor:
    """The advantages [B] of `rewards` [B], with the group of each in `group_ids` [B] (any integers).

    `lengths` [B]: tokens of each answer, for the estimators that need them. ValueError: an unknown name, other shapes, or a
    reward that is not finite.
    """
    estimator = find(ESTIMATORS, name, "advantage estimator")
    if rewards.ndim != 1 or group_ids.shape != rewards.shape or (lengths is not None and lengths.shape != rewards.shape):
        raise ValueError("rewards, group_ids and lengths are vectors of one length")
    if not bool(torch.isfinite(rewards).all()):
        raise ValueError("a reward is not finite")
    return estimator(rewards, torch.unique(group_ids, return_inverse=True)[1], lengths, **params)
