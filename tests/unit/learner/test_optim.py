from __future__ import annotations

import pytest
import torch
from torch.nn import Parameter

from learner.policy.optim import AdamW


def make(**settings: float) -> tuple[dict[str, Parameter], AdamW]:
    draw = torch.Generator().manual_seed(0)
    parameters = {name: Parameter(torch.randn(3, 2, generator=draw)) for name in ("b", "a")}
    return parameters, AdamW(parameters, learning_rate=0.1, **settings)


def move(parameters: dict[str, Parameter], optimiser: AdamW, number: int) -> None:
    for offset, parameter in enumerate(parameters.values()):
        parameter.grad = torch.full((3, 2), float(number + offset))
    optimiser.step()


def test_a_restored_optimiser_goes_on_bit_for_bit() -> None:
    straight, one = make(weight_decay=0.01)
    for number in range(4):
        move(straight, one, number)
    first, two = make(weight_decay=0.01)
    move(first, two, 0)
    move(first, two, 1)
    saved = two.state()
    second, three = make(weight_decay=0.01)
    for name, parameter in second.items():
        parameter.data.copy_(first[name].data)
    three.load_state(saved)
    move(second, three, 2)
    move(second, three, 3)
    assert all(torch.equal(straight[name], second[name]) for name in straight)


def test_a_saved_state_is_a_copy() -> None:
    parameters, optimiser = make()
    move(parameters, optimiser, 1)
    saved = optimiser.state()
    before = {name: value.clone() for name, value in saved.items()}
    move(parameters, optimiser, 5)
    assert all(torch.equal(saved[name], before[name]) for name in saved)


def test_an_empty_state_is_that_of_a_fresh_optimiser() -> None:
    parameters, optimiser = make()
    assert optimiser.state() == {}
    move(parameters, optimiser, 1)
    optimiser.load_state({})
    assert optimiser.state() == {}


def test_clipping_returns_the_norm_before_and_leaves_one_within_the_bound() -> None:
    parameters, optimiser = make(max_grad_norm=1.0)
    for parameter in parameters.values():
        parameter.grad = torch.full((3, 2), 2.0)
    assert optimiser.clip() == pytest.approx((12 * 4) ** 0.5)
    norm = torch.stack([p.grad.norm() for p in parameters.values() if p.grad is not None]).norm()
    assert float(norm) == pytest.approx(1.0, rel=1e-5)


def test_a_step_and_zero_drop_the_gradients() -> None:
    parameters, optimiser = make()
    move(parameters, optimiser, 1)
    assert all(p.grad is None for p in parameters.values())


def test_a_state_of_other_parameters_is_refused() -> None:
    parameters, optimiser = make()
    move(parameters, optimiser, 1)
    state = optimiser.state()
    with pytest.raises(ValueError, match="other parameters"):
        optimiser.load_state({name: value for name, value in state.items() if name != "exp_avg/a"})
    with pytest.raises(ValueError, match="shape"):
        optimiser.load_state({name: value.reshape(-1) for name, value in state.items()})
