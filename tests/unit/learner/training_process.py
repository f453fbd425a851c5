"""A process that takes training steps and saves: `python -m tests.unit.learner.training_process BASE DATA FROM_DIGEST|- STEP TO`.

Prints the digest it saved, and the sha256 of the adapter's weights.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from learner import update
from learner.algorithms.grpo import GrpoConfig
from learner.policy import checkpoint
from learner.policy.model import WEIGHTS_FILE, Policy
from learner.policy.optim import AdamW
from ratchet.adapters import ArtifactStore
from ratchet.types import Example
from tests.unit.learner import tiny_policy


def train(base: Path, data: Path, digest: str, first: int, last: int) -> tuple[str, str]:
    """Steps `first + 1 .. last`, each on its own groups, from the checkpoint `digest` or from the seed."""
    artifacts = ArtifactStore(data)
    policy, scorer = tiny_policy.load(base, seed=2), tiny_policy.load(base)
    moving = AdamW(policy.parameters(), learning_rate=0.01, weight_decay=0.01)
    if digest != "-":
        checkpoint.load(artifacts, "support", digest).restore(policy, moving)
    for number in range(first + 1, last + 1):
        update.step(policy, moving, _groups(scorer, number), GrpoConfig().make(), token_budget=40)
    saved = checkpoint.save(artifacts, "support", policy, moving, step=last, rng={"draws": last})
    return saved, hashlib.sha256(policy.adapter_files()[WEIGHTS_FILE]).hexdigest()


def _groups(scorer: Policy, number: int) -> list[Example]:
    return [tiny_policy.group(scorer, 10 * number + n, [0.0, 1.0, 0.25, 0.5]) for n in range(3)]


if __name__ == "__main__":
    base, data, digest, first, last = sys.argv[1:]
    sys.stdout.write(" ".join(train(Path(base), Path(data), digest, int(first), int(last))))
