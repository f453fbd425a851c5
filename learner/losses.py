"""Policy losses: [B, T] log-probs, a mask and advantages -> a scalar to minimise. Pure functions in a dict.

Each loss is a per-token objective and an aggregation. The aggregation says how micro-batches add up to the whole
batch: `sequence` losses weigh by their share of the sequences, `token` losses by their share of the tokens.

Notation: r = exp(log pi - log pi_old), A advantage, w = sg(min(pi_old / pi_engine, is_cap)),
d = log pi_ref - log pi, k3 = e^d - d - 1. All in nats. Formulas, choices and sources: docs/learner-math.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class PolicyLoss:
    """`loss`: a scalar with its graph. `metrics`: plain numbers, each a mean over the masked tokens."""

    loss: Tensor
    metrics: dict[str, float]


@dataclass(frozen=True)
class Terms:
    """What a loss is made of: [B, T] each; `advantages` already spread over the tokens, `mask` of the log-probs' dtype."""

    log_probs: Tensor
    old_log_probs: Tensor
    advantages: Tensor
    mask: Tensor
    ref_log_probs: Tensor | None
    rollout_log_probs: Tensor | None
    beta: float


@dataclass(frozen=True)
class Loss:
    """A registered loss and the unit its aggregation counts in."""

    compute: Callable[..., PolicyLoss]
    unit: Literal["sequence", "token"]


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
    """The loss `name` of log-probs [B, T]; `mask` [B, T] is true on answer tokens; `advantages` [B] or [B, T].

    `old_log_probs` are the learner's own before the update, `rollout_log_probs` the engine's at sampling (None: no
    off-policy weight), `ref_log_probs` the reference's (needed only if `beta` > 0). Only `log_probs` gets a gradient.
    Values outside the mask are ignored, whatever they are. ValueError: unknown name, wrong shapes, missing reference.
    """
    if name not in LOSSES:
        raise ValueError(f"no policy loss {name!r}; known: {', '.join(sorted(LOSSES))}")
    if beta > 0 and ref_log_probs is None:
        raise ValueError("beta > 0 needs ref_log_probs")
    given = {"old_log_probs": old_log_probs, "mask": mask, "ref_log_probs": ref_log_probs, "rollout_log_probs": rollout_log_probs}
    wrong = [key for key, value in given.items() if value is not None and value.shape != log_probs.shape]
    if log_probs.ndim != 2 or wrong or advantages.shape not in (log_probs.shape, log_probs.shape[:1]):
        raise ValueError(f"log-probs and mask are [B, T], advantages [B] or [B, T]; wrong: {wrong or 'log_probs or advantages'}")
    return LOSSES[name].compute(_terms(log_probs, old_log_probs, advantages, mask, ref_log_probs, rollout_log_probs, beta), **params)


def _terms(
    log_probs: Tensor,
    old: Tensor,
    advantages: Tensor,
    mask: Tensor,
    ref: Tensor | None,
    rollout: Tensor | None,
    beta: float,
) -> Terms:
    # Padding is blanked before any exp, so that an inf there can make no nan, in value or in gradient.
    inside = mask.bool()

    def blank(values: Tensor | None) -> Tensor | None:
        return None if values is None else torch.where(inside, values.detach(), 0.0)

    spread = advantages.detach() if advantages.ndim == 2 else advantages.detach()[:, None].expand_as(log_probs)
    current = torch.where(inside, log_probs, 0.0)
    before = torch.where(inside, old.detach(), 0.0)
    return Terms(current, before, spread, inside.to(log_probs.dtype), blank(ref) if beta > 0 else None, blank(rollout), beta)


def grpo(terms: Terms, *, eps_low: float = 0.2, eps_high: float = 0.2, is_cap: float = 2.0) -> PolicyLoss:
    """-[w min(rA, clip(r, 1 - eps_low, 1 + eps_high) A) - beta k3], mean over a sequence's tokens, then over sequences.

    2402.03300 equations 3 and 4, with token-level truncated importance sampling w (2402.03300 has none; see the page).
    The KL term is multiplied neither by the ratio r nor by w. Asymmetric clip: 2503.14476.
    """
    return _clipped(terms, _sequence_mean, eps_low, eps_high, is_cap)


def dr_grpo(terms: Terms, *, eps_low: float = 0.2, eps_high: float = 0.2, is_cap: float = 2.0, max_length: int | None = None) -> PolicyLoss:
    """GRPO's objective summed over all tokens / (B * max_length). 2503.20783.

    `max_length` (tokens) must be a constant of the run, e.g. the limit answers were sampled under; None takes T.
    """
    length = max_length or terms.mask.shape[1]

    def fixed_mean(values: Tensor, mask: Tensor) -> Tensor:
        return (values * mask).sum() / (mask.shape[0] * length)

    return _clipped(terms, fixed_mean, eps_low, eps_high, is_cap)


LOSSES: dict[str, Loss] = {"grpo": Loss(grpo, "sequence"), "dr_grpo": Loss(dr_grpo, "sequence")}


def _clipped(terms: Terms, aggregate: Callable[[Tensor, Tensor], Tensor], eps_low: float, eps_high: float, is_cap: float) -> PolicyLoss:
    ratio = (terms.log_probs - terms.old_log_probs).exp()
    clipped = ratio.clamp(1 - eps_low, 1 + eps_high)
    objective = torch.minimum(ratio * terms.advantages, clipped * terms.advantages)
    weight = _importance(terms, is_cap)
    kl = _k3(terms)
    loss = aggregate(terms.beta * kl - weight * objective, terms.mask)
    bound = (clipped * terms.advantages < ratio * terms.advantages).to(ratio.dtype)
    return PolicyLoss(
        loss, _metrics(terms, kl=kl, clip_fraction=bound, is_weight=weight, capped_fraction=(weight >= is_cap).to(ratio.dtype))
    )


def _importance(terms: Terms, cap: float) -> Tensor:
    """w [B, T] = min(pi_old / pi_engine, cap): the learner's numerics against the engine's, and staleness. No gradient."""
    if terms.rollout_log_probs is None:
        return torch.ones_like(terms.log_probs)
    return (terms.old_log_probs - terms.rollout_log_probs).exp().clamp(max=cap)


def _k3(terms: Terms) -> Tensor:
    """The k3 estimate of KL(pi || pi_ref) [B, T], never negative: e^d - d - 1."""
    if terms.ref_log_probs is None:
        return torch.zeros_like(terms.log_probs)
    d = terms.ref_log_probs - terms.log_probs
    return torch.expm1(d) - d


def _sequence_mean(values: Tensor, mask: Tensor) -> Tensor:
    return ((values * mask).sum(1) / mask.sum(1).clamp(min=1)).mean()


def _metrics(terms: Terms, **values: Tensor) -> dict[str, float]:
    tokens = terms.mask.sum().clamp(min=1)
    return {key: float((value.detach() * terms.mask).sum() / tokens) for key, value in values.items()}
