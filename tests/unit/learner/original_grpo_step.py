"""A GRPO step as commit 493a33b computed it, before algorithms were files of their own: what today's bytes are compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from learner.batch import micro_batches, pack
from learner.examples import Sequence
from learner.policy.model import Policy
from learner.policy.optim import AdamW
from ratchet.types import Example


def step(policy: Policy, optimiser: AdamW, groups: list[Example], budget: int, *, beta: float, scale: bool) -> None:
    """One step from groups that all have a spread of rewards; eps 0.2, is_cap 2."""
    answers = [(i, g.interactions[0], c) for i, g in enumerate(groups) for c in g.interactions[0].choices]
    rewards = torch.tensor([r for g in groups for r in g.rewards], dtype=torch.float64)
    advantages = _advantages(rewards, torch.tensor([i for i, _, _ in answers]), scale).tolist()
    sequences = [Sequence(i, item.prompt_ids, c.token_ids, c.logprobs, item.sampling.temperature) for i, item, c in answers]
    optimiser.zero()
    row = 0
    for part in micro_batches(sequences, budget):
        loss = _loss(policy, part, advantages[row : row + len(part)], beta)
        (loss * (len(part) / len(sequences))).backward()  # type: ignore[no-untyped-call]
        row += len(part)
    optimiser.clip()
    optimiser.step()


def _advantages(rewards: Tensor, group: Tensor, scale: bool) -> Tensor:
    def total(values: Tensor) -> Tensor:
        return torch.zeros(len(torch.bincount(group)), dtype=values.dtype).index_add(0, group, values)

    n = torch.bincount(group)
    centred = rewards - (total(rewards) / n)[group]
    if not scale:
        return centred
    variance = total(centred.square()) / (n.to(rewards.dtype) - 1).clamp(min=1)
    return centred / (variance.sqrt()[group] + 1e-6)


def _loss(policy: Policy, part: list[Sequence], advantages: list[float], beta: float) -> Tensor:
    packed = pack(part)
    mask = packed.mask
    reference = None
    if beta > 0:
        with torch.inference_mode():
            reference = policy.packed_log_probs(packed, adapter=False)
    log_probs = policy.packed_log_probs(packed)
    rollout = torch.where(mask, packed.spread(torch.tensor([value for s in part for value in s.logprobs])), 0.0)
    current, old = torch.where(mask, log_probs, 0.0), torch.where(mask, log_probs.detach(), 0.0)
    spread = torch.tensor(advantages, dtype=log_probs.dtype)[:, None].expand_as(log_probs)
    ratio = (current - old).exp()
    objective = torch.minimum(ratio * spread, ratio.clamp(0.8, 1.2) * spread)
    weight = (old - rollout).exp().clamp(max=2.0)
    kl = torch.zeros_like(current)
    if reference is not None:
        d = torch.where(mask, reference.detach(), 0.0) - current
        kl = torch.expm1(d) - d
    inside = mask.to(log_probs.dtype)
    return (((beta * kl - weight * objective) * inside).sum(1) / inside.sum(1).clamp(min=1)).mean()
