from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from learner.losses import PolicyLoss, policy_loss
from tests.unit.learner import scalar_losses
from tests.unit.learner.scalar_losses import Case

SETTINGS = [(0.1, 0.2, 0.2, 2.0), (0.0, 0.2, 0.28, 1.2), (1.5, 0.05, 0.4, 10.0)]


def run(name: str, case: Case, beta: float = 0.1, **params: Any) -> PolicyLoss:
    return policy_loss(
        name, case.log_probs, case.old, case.advantages, case.mask,
        ref_log_probs=case.ref, rollout_log_probs=case.rollout, beta=beta, **params,
    )  # fmt: skip


def gradient(loss: Tensor, case: Case) -> Tensor:
    return torch.autograd.grad(loss, case.log_probs)[0]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("beta", "low", "high", "cap"), SETTINGS)
def test_grpo_agrees_with_the_formula_in_loss_and_gradient(seed: int, beta: float, low: float, high: float, cap: float) -> None:
    case = Case.draw(seed)
    ours, theirs = run("grpo", case, beta, eps_low=low, eps_high=high, is_cap=cap).loss, scalar_losses.grpo(case, beta, low, high, cap)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradient(ours, case), gradient(theirs, case), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("beta", "low", "high", "cap"), SETTINGS)
def test_dr_grpo_agrees_with_the_formula_in_loss_and_gradient(seed: int, beta: float, low: float, high: float, cap: float) -> None:
    case = Case.draw(seed)
    ours = run("dr_grpo", case, beta, eps_low=low, eps_high=high, is_cap=cap, max_length=11).loss
    theirs = scalar_losses.dr_grpo(case, beta, low, high, cap, 11)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradient(ours, case), gradient(theirs, case), rtol=0, atol=1e-12)


def test_the_cases_bind_every_clip_and_cap() -> None:
    case = Case.draw(0)
    metrics = run("grpo", case).metrics
    assert 0 < metrics["clip_fraction"] < 1
    assert 0 < metrics["capped_fraction"] < 1
    assert metrics["kl"] > 0


@pytest.mark.parametrize("name", ["dr_grpo", "grpo"])
def test_only_the_current_log_probs_get_a_gradient(name: str) -> None:
    case = Case.draw(1)
    for values in (case.old, case.ref, case.rollout, case.advantages):
        values.requires_grad_()
    run(name, case).loss.backward()
    assert case.log_probs.grad is not None
    assert [case.old.grad, case.ref.grad, case.rollout.grad, case.advantages.grad] == [None] * 4


@pytest.mark.parametrize("name", ["dr_grpo", "grpo"])
@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf])
def test_padding_never_reaches_loss_or_gradient(name: str, junk: float) -> None:
    case = Case.draw(2)
    clean = run(name, case, max_length=7) if name == "dr_grpo" else run(name, case)
    dirty = Case(*(torch.where(case.mask, x, junk) for x in (case.log_probs, case.old, case.ref, case.rollout)), case.advantages, case.mask)
    found = run(name, dirty)
    assert float(found.loss.detach()) == float(clean.loss.detach())
    assert torch.equal(gradient(found.loss, case), gradient(clean.loss, case))


def test_the_kl_term_is_multiplied_by_neither_the_ratio_nor_the_importance_weight() -> None:
    case = Case.draw(3)
    case.advantages.zero_()
    near = run("grpo", case, beta=1.0)
    case.old, case.rollout = case.old - 3, case.rollout + 2
    assert float(near.loss.detach()) == float(run("grpo", case, beta=1.0).loss.detach())


def test_kl_to_itself_is_zero_and_k3_is_never_negative() -> None:
    case = Case.draw(4)
    case.ref = case.log_probs.detach()
    assert run("grpo", case).metrics["kl"] == 0
    case.ref = case.log_probs.detach() - 1e-9
    assert run("grpo", case).metrics["kl"] >= 0


def test_without_engine_log_probs_nothing_is_reweighted() -> None:
    case = Case.draw(5)
    bare = policy_loss("grpo", case.log_probs, case.old, case.advantages, case.mask, ref_log_probs=case.ref)
    case.rollout = case.old
    assert float(bare.loss.detach()) == float(run("grpo", case).loss.detach())
    assert bare.metrics["is_weight"] == 1


def test_on_policy_the_gradient_is_reinforce_with_the_advantage() -> None:
    case = Case.draw(6)
    case.old = case.rollout = case.log_probs.detach()
    found = gradient(run("grpo", case, beta=0.0).loss, case)
    expected = -case.advantages[:, None] * case.mask / case.mask.sum(1, keepdim=True) / len(case.advantages)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_advantages_may_be_given_a_token_each() -> None:
    case = Case.draw(7)
    whole = run("grpo", case).loss
    case.advantages = case.advantages[:, None].expand_as(case.log_probs)
    assert float(run("grpo", case).loss.detach()) == float(whole.detach())


def test_dr_grpo_divides_by_the_longest_row_unless_told() -> None:
    case = Case.draw(8)
    assert float(run("dr_grpo", case).loss.detach()) == float(run("dr_grpo", case, max_length=7).loss.detach())


def test_a_kl_weight_needs_a_reference_and_zero_weight_needs_none() -> None:
    case = Case.draw(9)
    with pytest.raises(ValueError, match="beta > 0 needs ref_log_probs"):
        policy_loss("grpo", case.log_probs, case.old, case.advantages, case.mask)
    assert policy_loss("grpo", case.log_probs, case.old, case.advantages, case.mask, beta=0.0).metrics["kl"] == 0


def test_an_unknown_loss_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no policy loss 'ppo'; known: .*dr_grpo, .*grpo"):
        run("ppo", Case.draw(0))


def test_a_wrong_shape_is_refused_by_name() -> None:
    case = Case.draw(0)
    case.ref = case.ref[:, 1:]
    with pytest.raises(ValueError, match="wrong: \\['ref_log_probs'\\]"):
        run("grpo", case)
    case = Case.draw(0)
    case.advantages = case.advantages[1:]
    with pytest.raises(ValueError, match="wrong: log_probs or advantages"):
        run("grpo", case)
