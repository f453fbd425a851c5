from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from learner import update
from learner.algorithms.base import Algorithm, Targets
from learner.algorithms.dr_grpo import DrGrpoConfig
from learner.algorithms.grpo import Grpo, GrpoConfig
from learner.algorithms.terms import PolicyLoss, Terms
from learner.batch import Batch, Packed
from learner.examples import Sequence
from learner.losses import policy_loss
from learner.policy.model import Policy
from learner.policy.optim import AdamW
from ratchet.errors import GateRefused
from ratchet.types import Example
from tests.unit.learner import tiny_policy

ALGORITHM = GrpoConfig(learning_rate=0.01).make()
SEVERAL = GrpoConfig(learning_rate=0.01, epochs=3).make()


def optimiser(policy: Policy) -> AdamW:
    return AdamW(policy.parameters(), learning_rate=ALGORITHM.config.learning_rate, max_grad_norm=1e9)


def four(policy: Policy) -> list[Example]:
    return [tiny_policy.group(policy, n, [0.0, 1.0, 0.25, 0.5], temperature=0.5 + n / 4) for n in range(4)]


def gradients_of_step(
    policy: Policy, groups: list[Example], budget: int, algorithm: Algorithm[Any] = ALGORITHM
) -> tuple[dict[str, Tensor], float]:
    """What the step hands to the optimiser, seen by one that does not move."""
    watched = optimiser(policy)
    seen: dict[str, Tensor] = {}
    watched.step = lambda: seen.update({k: p.grad.clone() for k, p in policy.parameters().items() if p.grad is not None})  # type: ignore[method-assign]
    report = update.step(policy, watched, groups, algorithm, token_budget=budget)
    watched.zero()
    return seen, report.loss


def whole_batch_loss(policy: Policy, groups: list[Example]) -> Tensor:
    """GRPO over all sequences, each scored alone by the plain forward, advantages by hand."""
    total = torch.zeros(())
    for group in groups:
        mean, std = sum(group.rewards) / 4, float(torch.tensor(group.rewards).std())
        (item,) = group.interactions
        for choice, reward in zip(item.choices, group.rewards, strict=True):
            prompt, ids, heat = item.prompt_ids, choice.token_ids, item.sampling.temperature
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
    tiny_policy.stir(policy, scale=0.1)
    groups = four(policy)
    seen, loss = gradients_of_step(policy, groups, budget)
    expected = whole_batch_loss(policy, groups)
    assert loss == pytest.approx(float(expected.detach()), abs=1e-5)
    for (name, parameter), gradient in zip(
        policy.parameters().items(), torch.autograd.grad(expected, list(policy.parameters().values())), strict=True
    ):
        torch.testing.assert_close(seen[name], gradient, rtol=1e-4, atol=1e-5, msg=f"{name} {tuple(parameter.shape)}")


def test_the_report_says_what_was_learned_from(policy: Policy) -> None:
    tiny_policy.stir(policy)
    groups = [tiny_policy.group(policy, n, [0.0, 1.0]) for n in (5, 6)]
    report = update.step(policy, optimiser(policy), groups, ALGORITHM)
    assert report.learned == ["g5", "g6"]
    assert report.tokens == sum(len(c.token_ids) for g in groups for c in g.interactions[0].choices)
    assert report.kl is not None
    assert report.kl > 0
    assert report.grad_norm > 0
    assert report.seconds > 0
    assert report.learning_rate == 0.01
    assert report.state == {}
    assert report.metrics.keys() == {"clip_fraction", "is_weight", "capped_fraction"}


@pytest.mark.parametrize(("algorithm", "passes"), [(ALGORITHM, 2), (GrpoConfig(beta=0.0).make(), 1), (SEVERAL, 5)])
def test_progress_counts_the_answer_tokens_of_all_passes(algorithm: Grpo, passes: int, policy: Policy) -> None:
    seen: list[tuple[int, int]] = []
    report = update.step(
        policy, optimiser(policy), four(policy), algorithm, progress=lambda done, total: seen.append((done, total)), token_budget=30
    )
    assert len(seen) > 2 * passes
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (passes * report.tokens, passes * report.tokens)


def test_a_step_raises_what_was_rewarded_and_lowers_what_was_not(policy: Policy) -> None:
    group = tiny_policy.group(policy, 1, [1.0, 0.0], lengths=[4, 4])
    (item,) = group.interactions
    answers = [c.token_ids for c in item.choices]

    def totals() -> list[float]:
        with torch.inference_mode():
            scored: list[float] = policy.log_probs(item.prompt_ids, answers)[0].sum(1).tolist()
        return scored

    before, moving = totals(), optimiser(policy)
    for _ in range(2):
        update.step(policy, moving, [group], ALGORITHM)
    after = totals()
    assert after[0] > before[0]
    assert after[1] < before[1]


@pytest.fixture
def passes(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, bool]]:
    """Each pass through the model as it happens: (adapter on, with a gradient)."""
    seen: list[tuple[bool, bool]] = []
    real = Policy.packed_log_probs

    def watched(self: Policy, packed: Packed, *, adapter: bool = True) -> Tensor:
        seen.append((adapter, torch.is_grad_enabled()))
        return real(self, packed, adapter=adapter)

    monkeypatch.setattr(Policy, "packed_log_probs", watched)
    return seen


OLD, REFERENCE, LEARN = (True, False), (False, False), (True, True)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (GrpoConfig(beta=0.0), [LEARN]),
        (GrpoConfig(beta=0.1), [REFERENCE, LEARN]),
        (GrpoConfig(beta=0.0, epochs=2), [OLD, LEARN, LEARN]),
        (GrpoConfig(beta=0.1, epochs=2), [REFERENCE, OLD, LEARN, LEARN]),
    ],
)
def test_no_pass_is_made_that_nobody_needs(
    config: GrpoConfig, expected: list[tuple[bool, bool]], policy: Policy, passes: list[tuple[bool, bool]]
) -> None:
    groups = four(policy)
    passes.clear()
    report = update.step(policy, optimiser(policy), groups, config.make())
    assert passes == expected
    assert (report.kl is None) == (config.beta == 0)


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


def test_a_later_epoch_that_is_refused_takes_back_the_steps_before_it(policy: Policy) -> None:
    moving, groups = optimiser(policy), four(policy)
    update.step(policy, moving, groups, ALGORITHM)
    moving._inner.param_groups[0]["lr"] = 1e30
    weights, state = policy.adapter_files(), moving.state()
    with pytest.raises(GateRefused, match="is not finite"):
        update.step(policy, moving, groups, SEVERAL)
    assert policy.adapter_files() == weights
    assert all(torch.equal(state[name], value) for name, value in moving.state().items())


def test_nothing_to_learn_from_is_refused(policy: Policy) -> None:
    with pytest.raises(GateRefused, match="no answer to learn from"):
        update.step(policy, optimiser(policy), [], ALGORITHM)


def test_clipping_is_active_only_once_the_policy_has_moved(policy: Policy) -> None:
    groups, tight = four(policy), {"learning_rate": 0.05, "eps_low": 0.01, "eps_high": 0.01}
    assert update.step(policy, optimiser(policy), groups, GrpoConfig(**tight).make()).metrics["clip_fraction"] == 0
    moved = update.step(policy, optimiser(policy), groups, GrpoConfig(**tight, epochs=3).make())
    assert moved.metrics["clip_fraction"] > 0.1


def test_several_epochs_are_as_many_steps_on_the_ratio_to_the_policy_before_them(policy: Policy) -> None:
    """Two epochs against two steps by hand, the second of which keeps the old log-probs of the first."""
    groups, start = four(policy), policy.adapter_state()
    update.step(policy, optimiser(policy), groups, GrpoConfig(learning_rate=0.01, beta=0.0, epochs=2).make())
    twice = policy.adapter_state()
    policy.set_adapter_state(start)
    moving = optimiser(policy)
    old = [scored(policy, group).detach() for group in groups]
    for _ in range(2):
        moving.zero()
        total = torch.stack([by_hand(policy, group, before) for group, before in zip(groups, old, strict=True)]).mean()
        total.backward()  # type: ignore[no-untyped-call]
        moving.step()
    for name, value in policy.adapter_state().items():
        torch.testing.assert_close(value, twice[name], rtol=1e-3, atol=1e-5)


def scored(policy: Policy, group: Example) -> Tensor:
    (item,) = group.interactions
    return policy.log_probs(item.prompt_ids, [c.token_ids for c in item.choices], temperature=item.sampling.temperature)[0]


def by_hand(policy: Policy, group: Example, old: Tensor) -> Tensor:
    """GRPO's loss of one group without a reference, given the old log-probs."""
    (item,) = group.interactions
    rewards = torch.tensor(group.rewards)
    engine, mask = torch.zeros_like(old), torch.zeros_like(old, dtype=torch.bool)
    for row, choice in enumerate(item.choices):
        engine[row, : len(choice.logprobs)], mask[row, : len(choice.logprobs)] = torch.tensor(choice.logprobs), True
    advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
    return policy_loss("grpo", scored(policy, group), old, advantages, mask, rollout_log_probs=engine, beta=0.0).loss


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.sets(st.integers(1, 15)), algorithm=st.sampled_from([SEVERAL, ALGORITHM, DrGrpoConfig(learning_rate=0.01, epochs=2).make()]))
def test_where_the_batch_is_cut_changes_neither_weights_nor_report(policy: Policy, cuts: set[int], algorithm: Algorithm[Any]) -> None:
    tiny_policy.stir(policy, scale=0.1)
    start, groups = policy.adapter_state(), four(policy)

    def run(places: list[int]) -> tuple[dict[str, Tensor], update.StepReport]:
        def cut(sequences: list[Sequence], budget: int) -> list[list[Sequence]]:
            return [sequences[a:b] for a, b in pairwise([0, *places, len(sequences)])]

        policy.set_adapter_state(start)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(update, "micro_batches", cut)
            # Steps along the gradient itself: Adam's first step is its sign, which noise around zero would turn.
            report = update.step(policy, Plain(policy), groups, algorithm)  # type: ignore[arg-type]
        return policy.adapter_state(), report

    (whole, one), (parts, other) = run([]), run(sorted(cuts))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=2e-5)
    assert (other.loss, other.kl, other.grad_norm) == pytest.approx((one.loss, one.kl, one.grad_norm), rel=1e-3, abs=1e-5)
    assert other.metrics == pytest.approx(one.metrics, abs=1e-3)


class Plain(AdamW):
    """Gradient descent in place of AdamW."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy.parameters(), learning_rate=0.01, max_grad_norm=1e9)

    def step(self) -> None:
        with torch.no_grad():
            for parameter in self.parameters.values():
                if parameter.grad is not None:
                    parameter -= 0.01 * parameter.grad
        self.zero()


class Watching(Grpo):
    """GRPO that reads the scores in phase two and hands a constant to the loss."""

    uses_old = True

    def targets(self, batch: Batch, state: dict[str, Any]) -> Targets:
        assert batch.old is not None and batch.reference is not None
        self.drift = float((batch.old - batch.reference)[batch.mask].abs().max())
        self.old = batch.old
        found = super().targets(batch, state)
        return Targets(found.values[:, None].expand_as(batch.old), {"steps": state.get("steps", 0) + 1}, {"half": 0.5})

    def loss(self, terms: Terms) -> PolicyLoss:
        found = super().loss(terms)
        return PolicyLoss(found.loss * terms.whole.constants["half"], found.metrics)


def test_targets_may_use_the_scores_be_one_a_token_and_keep_a_state(policy: Policy) -> None:
    tiny_policy.stir(policy)
    algorithm, groups = Watching(GrpoConfig(learning_rate=0.01)), four(policy)
    expected = [scored(policy, group).detach() for group in groups]
    plain = gradients_of_step(policy, groups, 40)
    halved = gradients_of_step(policy, groups, 40, algorithm)
    for row, group in enumerate(groups):
        width = expected[row].shape[1]
        torch.testing.assert_close(algorithm.old[4 * row : 4 * row + 4, :width], expected[row], rtol=0, atol=2e-5, msg=group.id)
    assert algorithm.drift > 0.01
    assert halved[1] == pytest.approx(plain[1] / 2, abs=1e-5)
    for name, gradient in plain[0].items():
        torch.testing.assert_close(halved[0][name], gradient / 2, rtol=1e-3, atol=1e-5)
    report = update.step(policy, optimiser(policy), groups, algorithm, state={"steps": 4})
    assert report.state == {"steps": 5}


def test_the_same_groups_and_seed_give_the_same_bytes(base: Path) -> None:
    def run() -> dict[str, bytes]:
        policy = tiny_policy.load(base, seed=11)
        moving = optimiser(policy)
        for _ in range(3):
            update.step(policy, moving, four(policy), ALGORITHM, token_budget=40)
        return policy.adapter_files()

    assert run() == run()
