"""One update, top to bottom: groups -> advantages -> micro-batches -> forward and backward -> one optimiser step.

However it is cut into micro-batches, the gradient is that of the whole batch. The old policy is the current one,
detached: one on-policy step a batch, so r = 1 in value and its gradient is that of log pi.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from learner import batch, losses
from learner.batch import Batch, Packed, Sequence
from learner.model import Policy
from learner.optim import AdamW
from ratchet import clock
from ratchet.errors import GateRefused
from ratchet.types import Example

TOKEN_BUDGET = 512
"""Tokens of a micro-batch, prompts counted once. Bounds memory: about 0.6 MB a token of logits at 49k entries, with gradients."""

Progress = Callable[[int, int], None]
"""Called after each micro-batch with the answer tokens done and in all."""


@dataclass(frozen=True)
class StepReport:
    """What a step did. `loss`, `kl` (nats a token to the base; None when beta is 0) and `grad_norm` (before clipping) are
    of the weights before the step; `reward` is the mean over all scored answers; `groups_*` are group ids; times in seconds."""

    loss: float
    kl: float | None
    grad_norm: float
    reward: float
    tokens: int
    groups_used: list[str]
    groups_zero_spread: list[str]
    groups_skipped: list[str]
    seconds: float
    learning_rate: float
    metrics: dict[str, float] = field(default_factory=dict)


def step(
    policy: Policy,
    optimiser: AdamW,
    groups: list[Example],
    algorithm: Any,
    *,
    progress: Progress | None = None,
    token_budget: int = TOKEN_BUDGET,
) -> StepReport:
    """Moves `policy` by one step learned from `groups`. The caller commits it or puts the old state back.

    GateRefused("sanity"): no group has a spread of rewards, or the loss or gradient norm is not finite; weights and
    optimiser are then as they were.
    """
    began = clock.monotonic()
    data = batch.build(groups, algorithm.type, **_estimator_params(algorithm))
    if not data.sequences:
        raise GateRefused("sanity", f"no group to learn from: {len(data.zero_spread)} of zero spread, {len(data.skipped)} incomplete")
    optimiser.zero()
    loss, metrics = _accumulate(policy, data, algorithm, progress, token_budget)
    norm = optimiser.clip()
    if not (math.isfinite(loss) and math.isfinite(norm)):
        optimiser.zero()
        raise GateRefused("sanity", f"loss {loss} or gradient norm {norm} is not finite")
    optimiser.step()
    return StepReport(
        loss=loss,
        kl=metrics.pop("kl") if algorithm.beta > 0 else None,
        grad_norm=norm,
        reward=data.reward,
        tokens=data.tokens,
        groups_used=data.used,
        groups_zero_spread=data.zero_spread,
        groups_skipped=data.skipped,
        seconds=clock.monotonic() - began,
        learning_rate=optimiser.learning_rate,
        metrics=metrics,
    )


def _accumulate(policy: Policy, data: Batch, algorithm: Any, progress: Progress | None, budget: int) -> tuple[float, dict[str, float]]:
    """Adds the whole batch's gradient, part by part; returns its loss and metrics (means over its tokens)."""
    total, done = 0.0, 0
    metrics: dict[str, float] = {}
    for part in batch.micro_batches(data.sequences, budget):
        tokens = sum(len(s.token_ids) for s in part)
        result = _loss(policy, part, algorithm)
        share = _share(algorithm.type, part, tokens, data)
        (result.loss * share).backward()  # type: ignore[no-untyped-call]
        total += float(result.loss.detach()) * share
        for key, value in result.metrics.items():
            metrics[key] = metrics.get(key, 0.0) + value * tokens / data.tokens
        done += tokens
        if progress is not None:
            progress(done, data.tokens)
    return total, metrics


def _share(name: str, part: list[Sequence], tokens: int, data: Batch) -> float:
    """The weight of a micro-batch's loss in the whole batch's."""
    by_token = losses.LOSSES[name].unit == "token"
    return tokens / data.tokens if by_token else len(part) / len(data.sequences)


def _loss(policy: Policy, part: list[Sequence], algorithm: Any) -> losses.PolicyLoss:
    packed = batch.pack(part, policy.device)
    reference = _reference(policy, packed) if algorithm.beta > 0 else None
    log_probs = policy.packed_log_probs(packed)
    return losses.policy_loss(
        algorithm.type,
        log_probs,
        log_probs.detach(),
        torch.tensor([s.advantage for s in part], dtype=log_probs.dtype, device=policy.device),
        packed.mask,
        ref_log_probs=reference,
        rollout_log_probs=_rollout(part, packed),
        beta=algorithm.beta,
        **_loss_params(algorithm),
    )


def _reference(policy: Policy, packed: Packed) -> Tensor:
    with torch.inference_mode():
        return policy.packed_log_probs(packed, adapter=False)


def _rollout(part: list[Sequence], packed: Packed) -> Tensor:
    """The engine's log-probs [B, T], in the packed order."""
    return packed.spread(torch.tensor([value for s in part for value in s.logprobs], device=packed.ids.device))


def _estimator_params(algorithm: Any) -> dict[str, Any]:
    return dict(algorithm.estimator_params)


def _loss_params(algorithm: Any) -> dict[str, Any]:
    return {"eps_low": algorithm.eps_low, "eps_high": algorithm.eps_high, "is_cap": algorithm.is_cap}
