"""With one epoch a lease gives the adapter that commit 493a33b made of it, byte for byte."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from learner import update
from learner.algorithms.grpo import GrpoConfig
from learner.policy.model import Policy
from learner.policy.optim import AdamW
from ratchet.types import Example
from tests.unit.learner import original_grpo_step, tiny_policy

RECORDED = {
    ("grpo", 25): ["2f24073b00ac7efd", "9dd07eb56d58cd09"],
    ("grpo", 512): ["c489ac934cc9b54f", "4b22c2e71387dccb"],
    ("unscaled", 25): ["646d5894747d846d", "6f6707c2b0d2ee9e"],
    ("unscaled", 512): ["caf5800f073d9422", "3bb6b35d7e04a3ec"],
}
"""Beginnings of the sha256 of the adapter's files after one step and two, computed by the code of 493a33b where RECORDED_ON says."""
RECORDED_ON = ("2.13.0+cpu", "AVX512")
"""torch, and the vector instructions it found: another machine's kernels sum in another order."""
CONFIGS = {"grpo": GrpoConfig(learning_rate=0.01), "unscaled": GrpoConfig(learning_rate=0.01, beta=0.0, scale="none")}


def leased(scorer: Policy, step: int) -> list[Example]:
    """Three groups of three answers, each at a temperature of its own, and one whose rewards are all equal."""
    groups = [tiny_policy.group(scorer, 10 * step + k, [0.0, 1.0, 0.25], temperature=0.5 + k / 4) for k in range(3)]
    return [*groups, tiny_policy.group(scorer, 10 * step + 7, [1.0, 1.0, 1.0])]


def optimiser(policy: Policy) -> AdamW:
    return AdamW(policy.parameters(), learning_rate=0.01, weight_decay=0.01)


def digest(policy: Policy) -> str:
    return hashlib.sha256(b"".join(name.encode() + data for name, data in sorted(policy.adapter_files().items()))).hexdigest()[:16]


@pytest.mark.parametrize("budget", [25, 512])
@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_one_step_and_two_give_the_bytes_of_before(name: str, budget: int, base: Path) -> None:
    config, scorer = CONFIGS[name], tiny_policy.load(base)
    tiny_policy.stir(scorer, scale=0.05)
    ours, theirs = tiny_policy.load(base, seed=5), tiny_policy.load(base, seed=5)
    mine, other, algorithm = optimiser(ours), optimiser(theirs), config.make()
    found = []
    for number in (1, 2):
        teach = algorithm.examine(leased(scorer, number), ours.window).teach
        update.step(ours, mine, teach, algorithm, token_budget=budget)
        original_grpo_step.step(theirs, other, teach, budget, beta=config.beta, scale=config.scale == "std")
        assert ours.adapter_files() == theirs.adapter_files()
        found.append(digest(ours))
    here = (str(torch.__version__), torch.backends.cpu.get_cpu_capability())
    assert found == RECORDED[name, budget] or here != RECORDED_ON
