"""The losses again, straight from the papers, one token at a time in scalar code: what the tensor code is checked against."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Case:
    """Random [B, T] log-probs far enough from one another that clips and caps bind, and ragged lengths."""

    log_probs: Tensor
    old: Tensor
    ref: Tensor
    rollout: Tensor
    advantages: Tensor
    mask: Tensor

    @classmethod
    def draw(cls, seed: int, b: int = 5, t: int = 7) -> Case:
        g = torch.Generator().manual_seed(seed)

        def near(x: Tensor, spread: float) -> Tensor:
            return x + spread * torch.randn(b, t, generator=g, dtype=torch.float64)

        old = -torch.rand(b, t, generator=g, dtype=torch.float64) * 4
        lengths = torch.randint(1, t + 1, (b, 1), generator=g)
        return cls(
            near(old, 0.3).requires_grad_(), old, near(old, 0.5), near(old, 0.8),
            torch.randn(b, generator=g, dtype=torch.float64), torch.arange(t)[None] < lengths,
        )  # fmt: skip


def token(lp: Tensor, old: Tensor, ref: Tensor, rollout: Tensor, a: Tensor, beta: float, low: float, high: float, cap: float) -> Tensor:
    """w min(r A, C(r) A) - beta (e^d - d - 1) of one token, to be maximised."""
    r = torch.exp(lp - old)
    kept = r
    if r > 1 + high:
        kept = torch.tensor(1 + high, dtype=torch.float64)
    if r < 1 - low:
        kept = torch.tensor(1 - low, dtype=torch.float64)
    w = min(float(torch.exp(old - rollout)), cap)
    objective = w * (r * a if r * a < kept * a else kept * a)
    d = ref - lp
    return objective - beta * (torch.exp(d) - d - 1)


def sums(case: Case, beta: float, low: float, high: float, cap: float) -> list[tuple[Tensor, int]]:
    """Of each sequence, the sum of its tokens' objectives and its length."""
    found = []
    for i in range(len(case.log_probs)):
        n = int(case.mask[i].sum())
        values = [
            token(case.log_probs[i, t], case.old[i, t], case.ref[i, t], case.rollout[i, t], case.advantages[i], beta, low, high, cap)
            for t in range(n)
        ]
        found.append((torch.stack(values).sum(), n))
    return found


def grpo(case: Case, beta: float, low: float, high: float, cap: float) -> Tensor:
    per = [total / n for total, n in sums(case, beta, low, high, cap)]
    return -sum(per, torch.tensor(0.0, dtype=torch.float64)) / len(per)


def dr_grpo(case: Case, beta: float, low: float, high: float, cap: float, longest: int) -> Tensor:
    per = [total for total, _ in sums(case, beta, low, high, cap)]
    return -sum(per, torch.tensor(0.0, dtype=torch.float64)) / (len(per) * longest)
