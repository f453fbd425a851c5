"""Policy losses by name, for researchers. A new loss goes into a file of `learner.algorithms`, not here.

Formulas, choices and sources: docs/learner-math.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from learner.algorithms.named import LOSSES, find
from learner.algorithms.terms import PolicyLoss, Terms, Whole

__all__ = ["PolicyLoss", "policy_loss", "terms"]


def policy_loss(
    name: str,
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    ref_log_probs: Tensor | None = None,
    rollout_log_probs: Tensor | None = None,
    beta: float = 0.1,
    **params: Any,
) -> PolicyLoss:
    """The loss `name` of a whole batch of log-probs [B, T]; `mask` [B, T] is true on answer tokens; `advantages` [B] or [B, T].

    `old_log_probs` are the learner's own before the update, `rollout_log_probs` the engine's at sampling (None: no
    off-policy weight), `ref_log_probs` the reference's (needed only if `beta` > 0). Only `log_probs` gets a gradient.
    Values outside the mask are ignored, whatever they are. ValueError: unknown name, wrong shapes, missing reference.
    """
    loss = find(LOSSES, name, "policy loss")
    if beta > 0 and ref_log_probs is None:
        raise ValueError("beta > 0 needs ref_log_probs")
    given = {"old_log_probs": old_log_probs, "mask": mask, "ref_log_probs": ref_log_probs, "rollout_log_probs": rollout_log_probs}
    wrong = [key for key, value in given.items() if value is not None and value.shape != log_probs.shape]
    if log_probs.ndim != 2 or wrong or advantages.shape not in (log_probs.shape, log_probs.shape[:1]):
        raise ValueError(f"log-probs and mask are [B, T], advantages [B] or [B, T]; wrong: {wrong or 'log_probs or advantages'}")
    whole = Whole(len(mask), max(1, int(mask.sum())), mask.shape[1])
    reference = ref_log_probs if beta > 0 else None
    return loss(terms(log_probs, old_log_probs, advantages, mask, reference, rollout_log_probs, whole), beta=beta, **params)


def terms(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    reference: Tensor | None,
    rollout: Tensor | None,
    whole: Whole,
) -> Terms:
    """The terms of a loss. Outside the mask every value becomes zero before any exp, so that an inf there makes no NaN."""
    inside = mask.bool()

    def constant(values: Tensor | None) -> Tensor | None:
        return None if values is None else torch.where(inside, values.detach(), 0.0)

    each = advantages if advantages.ndim == 2 else advantages[:, None].expand_as(log_probs)
    return Terms(
        log_probs=torch.where(inside, log_probs, 0.0),
        old_log_probs=torch.where(inside, old_log_probs.detach(), 0.0),
        advantages=torch.where(inside, each.detach(), 0.0),
        mask=inside.to(log_probs.dtype),
        ref_log_probs=constant(reference),
        rollout_log_probs=constant(rollout),
        whole=whole,
    )
