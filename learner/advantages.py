"""Advantage estimators: rewards [B] and the group of each -> advantages [B]. Pure functions in a dict.

A group of zero spread (one answer, or equal rewards) gets exactly zero from every estimator: there is nothing to
compare, and dividing rounding noise by epsilon would invent a signal. Formulas and sources: docs/learner-math.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

Estimator = Callable[..., Tensor]


def estimate(name: str, rewards: Tensor, group_ids: Tensor, *, lengths: Tensor | None = None, **params: Any) -> Tensor:
    """The advantages [B] of `rewards` [B] within the groups named by `group_ids` [B] (any integers).

    `lengths` [B] (tokens) is for estimators that need it; these do not. ValueError: an unknown name, other shapes, or a
    reward that is not finite.
    """
    if name not in ESTIMATORS:
        raise ValueError(f"no advantage estimator {name!r}; known: {', '.join(sorted(ESTIMATORS))}")
    if rewards.ndim != 1 or group_ids.shape != rewards.shape or (lengths is not None and lengths.shape != rewards.shape):
        raise ValueError("rewards, group_ids and lengths are vectors of one length")
    if not bool(torch.isfinite(rewards).all()):
        raise ValueError("a reward is not finite")
    group = torch.unique(group_ids, return_inverse=True)[1]
    values = ESTIMATORS[name](rewards, group, lengths, **params)
    return torch.where(_spread(rewards, group)[group] > 0, values, torch.zeros_like(values))


def grpo(rewards: Tensor, group: Tensor, lengths: Tensor | None, *, scale: Literal["std", "none"] = "std", eps: float = 1e-6) -> Tensor:
    """(R - mean) / (std + eps), std with n - 1 as TRL and verl take it; `scale="none"`: R - mean. 2402.03300 section 4.1."""
    if scale not in ("std", "none"):
        raise ValueError(f"scale is 'std' or 'none', not {scale!r}")
    centred = rewards - _mean(rewards, group)[group]
    if scale == "none":
        return centred
    n = _count(group).to(rewards.dtype)
    variance = _sum(centred.square(), group) / (n - 1).clamp(min=1)
    return centred / (variance.sqrt()[group] + eps)


def dr_grpo(rewards: Tensor, group: Tensor, lengths: Tensor | None) -> Tensor:
    """R - mean. 2503.20783 section 3."""
    return rewards - _mean(rewards, group)[group]


def rloo(rewards: Tensor, group: Tensor, lengths: Tensor | None) -> Tensor:
    """R - mean of the *other* answers = n / (n - 1) * (R - mean). 2402.14740 equation 8."""
    n = _count(group).to(rewards.dtype)
    return (n / (n - 1).clamp(min=1))[group] * (rewards - _mean(rewards, group)[group])


ESTIMATORS: dict[str, Estimator] = {"grpo": grpo, "dr_grpo": dr_grpo, "rloo": rloo}


def _count(group: Tensor) -> Tensor:
    return torch.bincount(group)


def _sum(values: Tensor, group: Tensor) -> Tensor:
    return torch.zeros(len(_count(group)), dtype=values.dtype, device=values.device).index_add(0, group, values)


def _mean(values: Tensor, group: Tensor) -> Tensor:
    return _sum(values, group) / _count(group)


def _spread(values: Tensor, group: Tensor) -> Tensor:
    """max - min of each group: zero exactly when its values are equal, which a computed variance is not."""
    empty = torch.zeros(len(_count(group)), dtype=values.dtype, device=values.device)
    highest = empty.scatter_reduce(0, group, values, "amax", include_self=False)
    return highest - empty.scatter_reduce(0, group, values, "amin", include_self=False)
