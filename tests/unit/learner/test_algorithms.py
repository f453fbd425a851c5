"""The algorithms as the update meets them: which examples teach, shares that add up to the batch, no torch before it is needed."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner import losses
from learner.algorithms.base import Algorithm, Examined
from learner.algorithms.dr_grpo import DrGrpoConfig
from learner.algorithms.grpo import GrpoConfig
from learner.algorithms.named import LOSSES, find, policy_loss
from learner.algorithms.terms import PolicyLoss, Terms, Whole
from learner.batch import Batch
from learner.examples import Sequence
from ratchet.config import ALGORITHMS
from ratchet.types import Example, Signal
from tests.support.ema_reinforce import EmaReinforceConfig
from tests.support.stores import group_of, interaction
from tests.unit.learner.scalar_losses import Case

ROOT = Path(__file__).parents[3]
MADE: list[Algorithm[Any]] = [
    GrpoConfig().make(),
    GrpoConfig(beta=0.0).make(),
    DrGrpoConfig(max_length=9).make(),
    EmaReinforceConfig().make(),
]


def terms(case: Case, rows: slice, algorithm: Algorithm[Any]) -> Terms:
    """Some rows of a batch, cut to their longest answer, with the constants of the whole."""
    width = int(case.mask[rows].sum(1).max())
    log_probs, old, ref, rollout, mask = (x[rows, :width] for x in (case.log_probs, case.old, case.ref, case.rollout, case.mask))
    whole = Whole(len(case.mask), int(case.mask.sum()), int(case.mask.sum(1).max()))
    return losses.terms(log_probs, old, case.advantages[rows], mask, ref if algorithm.uses_reference else None, rollout, whole)


@pytest.mark.parametrize("algorithm", MADE, ids=lambda a: f"{a.config.type}-{a.uses_reference}")
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 99), cuts=st.sets(st.integers(1, 6)))
def test_the_shares_of_any_cut_add_up_to_the_loss_the_gradient_and_the_metrics_of_the_batch(
    algorithm: Algorithm[Any], seed: int, cuts: set[int]
) -> None:
    case = Case.draw(seed, b=7)
    whole = algorithm.loss(terms(case, slice(0, 7), algorithm))
    shares = [algorithm.loss(terms(case, slice(*pair), algorithm)) for pair in pairwise([0, *sorted(cuts), 7])]
    total = torch.stack([share.loss for share in shares]).sum()
    torch.testing.assert_close(total, whole.loss, rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad(loss, case.log_probs)[0] for loss in (total, whole.loss)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)
    for key, value in whole.metrics.items():
        assert sum(share.metrics[key] for share in shares) == pytest.approx(value, abs=1e-9), key


@pytest.mark.parametrize("config", [GrpoConfig(), DrGrpoConfig()])
def test_a_group_relative_algorithm_sets_aside_what_it_cannot_compare(config: GrpoConfig | DrGrpoConfig) -> None:
    good, equal, torn, long = (group_of(interaction(2), rewards) for rewards in ([0.0, 1.0], [0.5, 0.5], [1.0, 0.0], [1.0, 0.0]))
    torn.signals.pop()
    long.interactions[0].prompt_ids = [1] * 50
    assert config.make().examine([good, equal, torn, long], 20) == Examined(
        [good], {equal.id: "zero_spread", torn.id: "incomplete", long.id: "too_long"}
    )
    assert config.make().kinds == {"group": "fresh"}


def test_a_kl_weight_of_zero_needs_no_reference() -> None:
    assert [a.uses_reference for a in MADE] == [True, False, True, False]


def test_the_plug_in_keeps_a_running_baseline_as_its_state() -> None:
    algorithm = EmaReinforceConfig(rate=0.5).make()

    def batch(*rewards: float) -> Batch:
        return Batch([Sequence(i, [1], [2], [-1.0], 1.0, reward) for i, reward in enumerate(rewards)])

    first = algorithm.targets(batch(0.0, 1.0), {})
    assert (first.values.tolist(), first.state) == ([-0.5, 0.5], {"baseline": 0.5})
    second = algorithm.targets(batch(1.0, 1.0), first.state)
    assert (second.values.tolist(), second.state) == ([0.5, 0.5], {"baseline": 0.75})


def test_the_plug_in_takes_answers_rated_alone_on_its_own_metric() -> None:
    item = interaction()
    good, thumb = (Example(name, "lone", [item], [Signal(item.id, 0, name, 1.0)]) for name in ("reward", "thumb"))
    assert EmaReinforceConfig().make().examine([good, thumb], 100) == Examined([good], {"thumb": "other_metric"})


def test_a_loss_is_found_by_the_name_of_its_decorator() -> None:
    @policy_loss("test_constant")
    def constant(terms: Terms, *, beta: float) -> PolicyLoss:
        return PolicyLoss(terms.log_probs.sum() * 0 + beta, {})

    assert find(LOSSES, "test_constant", "policy loss") is constant
    case = Case.draw(0)
    assert float(losses.policy_loss("test_constant", case.log_probs, case.old, case.advantages, case.mask, beta=0.0).loss.detach()) == 0.0


def test_each_algorithm_is_made_by_its_configuration() -> None:
    for name in ("grpo", "dr_grpo"):
        made = ALGORITHMS.model(name).model_validate({}).make()
        assert isinstance(made, Algorithm) and made.config.type == name


def test_the_gateway_and_the_algorithms_configurations_bring_no_torch() -> None:
    program = (
        "import importlib, pkgutil, sys, gateway.app, learner.algorithms as ours\n"
        "from ratchet.config import ALGORITHMS, load\n"
        "load(None, {})\n"
        "for name in ALGORITHMS.names(): ALGORITHMS.model(name).model_validate({}).make()\n"
        "for module in pkgutil.iter_modules(ours.__path__): importlib.import_module(ours.__name__ + '.' + module.name)\n"
        "sys.exit('torch' in sys.modules or 'learner.algorithms.grpo' not in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False, timeout=120).returncode == 0
