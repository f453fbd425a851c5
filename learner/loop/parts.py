"""What works on one policy, put together from its configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from learner.gate import heldout, proof
from learner.gate.gate import Gate
from learner.gate.heldout import Heldout
from learner.gate.proof import Prover
from learner.loop.leasing import Leasing
from learner.loop.ownership import Identity, Ownership
from learner.loop.status import Status
from learner.policy.trainer import Trainer, Worker
from learner.publication.publish import Retirement
from learner.publication.replicas import Replicas
from learner.rewards.python import Scorer
from learner.shadow.shadow import Shadow
from ratchet.adapters import ArtifactStore
from ratchet.buffer import Store
from ratchet.config.model import Config, PolicyConfig


@dataclass
class Parts:
    """The parts of one policy's loop."""

    name: str
    config: PolicyConfig
    artifacts: ArtifactStore
    store: Store
    ownership: Ownership
    replicas: Replicas
    trainer: Trainer
    leasing: Leasing
    gate: Gate
    shadow: Shadow
    retirement: Retirement
    status: Status


def build(name: str, config: Config, data: Path, *, store: Store, replicas: Replicas, worker: Worker, identity: Identity) -> Parts:
    """Build the parts of the policy `name`. ConfigError: a reward function or the held-out file is not usable."""
    policy = config.policies[name]
    scorer, artifacts = Scorer(policy.rewards), ArtifactStore.of(config, data)
    ownership = Ownership(name, store, identity, config.learner.lease_seconds)
    status = Status(name, store, ownership)
    model_path = config.models[policy.base].path
    trainer = Trainer(name, policy, model_path=model_path, artifacts=artifacts, learner=config.learner, worker=worker)
    leasing = Leasing(name, policy, store=store, ownership=ownership, trainer=trainer, status=status)
    evaluation = _evaluation(name, policy, trainer, scorer)
    prover = Prover(name, trainer, _probes(policy, evaluation))
    return Parts(
        name=name,
        config=policy,
        artifacts=artifacts,
        store=store,
        ownership=ownership,
        replicas=replicas,
        trainer=trainer,
        leasing=leasing,
        gate=Gate(policy, artifacts=artifacts, store=store, replicas=replicas, prover=prover, evaluation=evaluation),
        shadow=Shadow(name, policy, store=store, replicas=replicas, scorer=scorer, leasing=leasing, status=status),
        retirement=Retirement(name, policy.base, policy.schedule.max_staleness, store=store, replicas=replicas),
        status=status,
    )


def _evaluation(name: str, policy: PolicyConfig, trainer: Trainer, scorer: Scorer) -> Heldout | None:
    if policy.gate.heldout is None:
        return None
    return Heldout(name, policy.seed, policy.gate, trainer, scorer, heldout.read(Path(policy.gate.heldout)))


def _probes(policy: PolicyConfig, evaluation: Heldout | None) -> list[list[dict[str, str]]]:
    """The prompts of the activation proof: the first held-out ones, else built-in ones; at most `gate.probes`."""
    if evaluation is not None:
        return evaluation.chats[: policy.gate.probes]
    return [[{"role": "user", "content": text}] for text in proof.PROBES[: policy.gate.probes]]
