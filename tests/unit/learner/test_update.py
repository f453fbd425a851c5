from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from learner import update
from learner.algorithms.grpo import GrpoConfig
from learner.losses import policy_loss
from learner.model import Policy
from learner.optim import AdamW
from ratchet.errors import GateRefused
from ratchet.types import Example
from tests.unit.learner import tiny

ALGORITHM = GrpoConfig(learning_rate=0.01)


def optimiser(policy: Policy) -> AdamW:
    return AdamW(policy.parameters(), learning_rate=ALGORITHM.learning_rate, max_grad_norm=1e9)


def four(policy: Policy) -> list[Example]:
    return [tiny.group(policy, n, [0.0, 1.0, 0.25, 0.5], temperature=0.5 + n / 4) for n in range(4)]


def gradients_of_step(policy: Policy, groups: list[Example], budget: int) -> tuple[dict[str, Tensor], float]:
    """What the step hands to the optimiser, seen by one that does not move."""
    watched = optimiser(policy)
    seen: dict[str, Tensor] = {}
    watched.step = lambda: seen.update({k: p.grad.clone() for k, p in policy.parameters().items() if p.grad is not None})  # type: ignore[method-assign]
    report = update.step(policy, watched, groups, ALGORITHM, token_budget=budget)
    watched.zero()
    return seen, report.loss


def whole_batch_loss(policy: Policy, groups: list[Example]) -> Tensor:
    """GRPO over all sequences, each scored alone by the plain forward, advantages by hand."""
    total = torch.zeros(())
    for group in groups:
        mean, std = sum(group.rewards) / 4, float(torch.tensor(group.rewards).std())
        for choice, reward in zip(group.interactions[0].choices, group.rewards, strict=True):
            prompt, ids, heat = group.interactions[0].prompt_ids, choice.token_ids, group.interactions[0].sampling.temperature
            scored = policy.log_probs(prompt, [ids], temperature=heat)[0]
            with torch.no_grad():
                reference = policy.log_probs(prompt, [ids], temperature=heat, adapter=False)[0]
            advantage = torch.tensor([(reward - mean) / (std + 1e-6)])
            total = total + policy_loss(
                "grpo", scored, scored.detach(), advantage, torch.ones_like(scored), ref_log_probs=reference,
                rollout_log_probs=torch.tensor([choice.logprobs]),
            ).loss  # fmt: skip
    return total / (4 * len(groups))


@pytest.mark.parametrize("budget", [1, 25, 60, 10_000])
def test_the_gradient_is_that_of_the_whole_batch_however_it_is_cut(policy: Policy, budget: int) -> None:
    tiny.stir(policy, scale=0.1)
    groups = four(policy)
    seen, loss = gradients_of_step(policy, groups, budget)
    expected = whole_batch_loss(policy, groups)
    assert loss == pytest.approx(float(expected.detach()), abs=1e-5)
    for (name, parameter), gradient in zip(
        policy.parameters().items(), torch.autograd.grad(expected, list(policy.parameters().values())), strict=True
    ):
        torch.testing.assert_close(seen[name], gradient, rtol=1e-4, atol=1e-5, msg=f"{name} {tuple(parameter.shape)}")


def test_the_report_says_what_was_learned_from(policy: Policy) -> None:
    tiny.stir(policy)
    torn = tiny.group(policy, 7, [0.0, 1.0])
    torn.interactions[0].choices[0].logprobs.pop()
    groups = [tiny.group(policy, 5, [0.0, 1.0]), tiny.group(policy, 6, [1.0, 1.0]), torn]
    report = update.step(policy, optimiser(policy), groups, ALGORITHM)
    assert (report.groups_used, report.groups_zero_spread, report.groups_skipped) == (["g5"], ["g6"], ["g7"])
    assert report.reward == 0.75
    assert report.tokens == sum(len(c.token_ids) for c in groups[0].interactions[0].choices)
    assert report.kl is not None
    assert report.kl > 0
    assert report.grad_norm > 0
    assert report.seconds > 0
    assert report.learning_rate == 0.01
    assert report.metrics.keys() == {"clip_fraction", "is_weight", "capped_fraction"}


def test_progress_counts_answer_tokens_up_to_all(policy: Policy) -> None:
    seen: list[tuple[int, int]] = []
    report = update.step(
        policy, optimiser(policy), four(policy), ALGORITHM, progress=lambda done, total: seen.append((done, total)), token_budget=30
    )
    assert len(seen) > 2
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (report.tokens, report.tokens)


def test_a_step_raises_what_was_rewarded_and_lowers_what_was_not(policy: Policy) -> None:
    group = tiny.group(policy, 1, [1.0, 0.0], lengths=[4, 4])
    answers = [c.token_ids for c in group.interactions[0].choices]

    def totals() -> list[float]:
        with torch.inference_mode():
            scored: list[float] = policy.log_probs(group.interactions[0].prompt_ids, answers)[0].sum(1).tolist()
        return scored

    before, moving = totals(), optimiser(policy)
    for _ in range(2):
        update.step(policy, moving, [group], ALGORITHM)
    after = totals()
    assert after[0] > before[0]
    assert after[1] < before[1]


def test_without_a_kl_weight_no_reference_is_computed(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    real = Policy.packed_log_probs

    def watched(self: Policy, packed: object, *, adapter: bool = True) -> Tensor:
        asked.append(adapter)
        return real(self, packed, adapter=adapter)  # type: ignore[arg-type]

    monkeypatch.setattr(Policy, "packed_log_probs", watched)
    groups = four(policy)
    asked.clear()
    report = update.step(policy, optimiser(policy), groups, GrpoConfig(beta=0.0))
    assert asked == [True]
    assert report.kl is None
    update.step(policy, optimiser(policy), groups, GrpoConfig(beta=0.1))
    assert asked == [True, False, True]


def test_a_loss_or_gradient_that_is_not_finite_is_refused_and_changes_nothing(policy: Policy) -> None:
    moving, groups = optimiser(policy), four(policy)
    update.step(policy, moving, groups, ALGORITHM)
    policy.set_adapter_state({name: torch.full_like(value, 1e30) for name, value in policy.adapter_state().items()})
    weights, state = policy.adapter_files(), moving.state()
    with pytest.raises(GateRefused, match="sanity: loss nan or gradient norm nan is not finite"):
        update.step(policy, moving, groups, ALGORITHM)
    assert policy.adapter_files() == weights
    assert all(torch.equal(state[name], value) for name, value in moving.state().items())
    assert all(p.grad is None for p in policy.parameters().values())


def test_groups_without_any_spread_are_refused_rather_than_learned_from(policy: Policy) -> None:
    with pytest.raises(GateRefused, match="no group to learn from: 1 of zero spread, 0 incomplete"):
        update.step(policy, optimiser(policy), [tiny.group(policy, 0, [1.0, 1.0])], ALGORITHM)


def test_the_same_groups_and_seed_give_the_same_bytes(base: Path) -> None:
    def run() -> dict[str, bytes]:
        policy = tiny.load(base, seed=11)
        moving = optimiser(policy)
        for _ in range(3):
            update.step(policy, moving, four(policy), ALGORITHM, token_budget=40)
        return policy.adapter_files()

    assert run() == run()
