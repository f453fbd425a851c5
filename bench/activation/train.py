"""Adapters of real GRPO steps for the activation proof's recording: lineages of consecutive versions at several learning rates.

    python -m bench.activation.train FOLDER

Writes `FOLDER/SEED-LR/V/adapter_*` for each version V = 1.. of each lineage (the exclamation task of `bench/learn_task.py`).
A version that is there already is not trained again, but its lineage's later ones start over from the first that is missing.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path
from typing import Any

import torch

from bench import learn_task
from learner import update
from learner.algorithms.base import Algorithm
from learner.algorithms.grpo import GrpoConfig
from learner.policy.model import Policy
from learner.policy.optim import AdamW
from ratchet.config.model import LoraConfig
from ratchet.models import resolve

LORA = LoraConfig(rank=8, alpha=16)
VERSIONS = 3
LINEAGES = [(0, 1e-3), (1, 1e-3), (2, 3e-4), (3, 3e-4), (4, 1e-4), (5, 1e-4), (6, 3e-5), (7, 3e-5)]
"""(seed, learning rate): two of each, so that a statistic chosen on the even seeds can be judged on the odd ones."""


def place(folder: Path, seed: int, rate: float, version: int) -> Path:
    """Where an adapter's two files are."""
    return folder / f"{seed}-{rate:g}" / str(version)


def train(folder: Path, seed: int, rate: float) -> None:
    """One lineage, from the base."""
    policy = Policy.load(Path(resolve("smollm2")), LORA, seed=seed, device="cpu", threads=1)
    algorithm = GrpoConfig(learning_rate=rate).make()
    optimiser = AdamW(policy.parameters(), learning_rate=rate)
    chooser = random.Random(seed)
    torch.manual_seed(seed)
    for version in range(1, VERSIONS + 1):
        report = step(policy, optimiser, algorithm, chooser)
        target = place(folder, seed, rate, version)
        target.mkdir(parents=True, exist_ok=True)
        for name, data in policy.adapter_files().items():
            (target / name).write_bytes(data)
        print(f"{target}: gradient norm {report.grad_norm:.2f}, {report.seconds:.1f} s", flush=True)


def step(policy: Policy, optimiser: AdamW, algorithm: Algorithm[Any], chooser: random.Random) -> update.StepReport:
    """Samples groups until one has a spread, and learns from them."""
    while True:
        topics = chooser.sample(learn_task.TOPICS, learn_task.PROMPTS)
        groups = [learn_task.sample(policy, topic, learn_task.ANSWERS) for topic in topics]
        teach = algorithm.examine(groups, policy.window).teach
        if teach:
            return update.step(policy, optimiser, teach, algorithm)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for seed, rate in LINEAGES:
        if not place(folder, seed, rate, VERSIONS).is_dir():
            train(folder, seed, rate)
    return 0


if __name__ == "__main__":
    sys.exit(main())
