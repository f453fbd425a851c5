from __future__ import annotations

import pytest
import torch
from torch import Tensor

from learner.policy.head import chosen_log_probs

SOURCE = torch.tensor([0, 0, 2, 3])
TARGET = torch.tensor([4, 4, 0, 8])


def plain(logits: Tensor, temperature: Tensor) -> Tensor:
    return (logits / temperature[:, None]).log_softmax(-1)[SOURCE, TARGET]


@pytest.mark.parametrize("temperature", [[1.0] * 4, [0.5, 1.0, 2.0, 1.3]])
def test_values_and_gradients_are_those_of_log_softmax(temperature: list[float]) -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 9, generator=draw, dtype=torch.float64).requires_grad_()
    weights = torch.randn(4, generator=draw, dtype=torch.float64)
    heat = torch.tensor(temperature, dtype=torch.float64)
    ours, theirs = chosen_log_probs(logits, heat, SOURCE, TARGET), plain(logits, heat)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad((x * weights).sum(), logits)[0] for x in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


def test_very_large_logits_stay_finite() -> None:
    logits = torch.full((4, 9), 1e30).requires_grad_()
    values = chosen_log_probs(logits, torch.ones(4), SOURCE, TARGET)
    values.sum().backward()
    assert logits.grad is not None
    assert bool(torch.isfinite(values).all() & torch.isfinite(logits.grad).all())
