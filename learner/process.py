"""The learner process: builds the parts, runs the loop of every policy, and stops on a signal."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from learner.gate import heldout, proof
from learner.gate.gate import Gate
from learner.gate.heldout import Heldout
from learner.gate.proof import Prover
from learner.leasing import Leasing
from learner.loop import Parts, PolicyLoop
from learner.policy.trainer import Trainer, Worker
from learner.publication.publish import Retirement
from learner.publication.replicas import Replicas
from learner.rewards.python import Scorer
from learner.shadow.shadow import Shadow
from learner.status import Status
from ratchet.adapters import ArtifactStore
from ratchet.buffer import Store
from ratchet.config.model import Config, PolicyConfig
from ratchet.errors import ConfigError, StoreUnavailable
from ratchet.process import startup
from ratchet.process.locks import locked
from ratchet.tasks import end

log = logging.getLogger(__name__)

NICENESS = 10
"""Niceness of the learner. Serving runs at 0, so the kernel prefers it."""
EXPIRE_SECONDS = 10.0
"""Seconds between two sweeps for expired rewards."""


async def serve(config: Config, data: Path) -> None:
    """Run until SIGTERM or SIGINT. An unfinished update is abandoned; its lease is kept for the next start.

    Raises ConfigError if a reward function, the held-out file or the shared folder is not usable, StoreUnavailable if the store
    does not answer in time.
    """
    os.nice(NICENESS)
    stop = startup.stop_event()
    ArtifactStore.of(config, data).check()
    with only_one(data):
        store = await startup.wait_for_store(config, data)
        worker, replicas = Worker(), Replicas(store, data)
        try:
            loops = [build(name, config, data, store=store, replicas=replicas, worker=worker) for name in config.policies]
            await _until(stop, worker, loops, store)
        finally:
            worker.stop()
            await replicas.close()
            await store.close()


def build(name: str, config: Config, data: Path, *, store: Store, replicas: Replicas, worker: Worker) -> PolicyLoop:
    """Return the loop of one policy. Raises ConfigError if a reward function or the held-out file is not usable."""
    policy = config.policies[name]
    scorer, status = Scorer(policy.rewards), Status(name, store)
    model_path = config.models[policy.base].path
    artifacts = ArtifactStore.of(config, data)
    trainer = Trainer(name, policy, model_path=model_path, artifacts=artifacts, learner=config.learner, worker=worker)
    leasing = Leasing(name, policy, store=store, trainer=trainer, status=status)
    evaluation = _evaluation(name, policy, trainer, scorer)
    prover = Prover(name, trainer, _probes(policy, evaluation))
    parts = Parts(
        store=store,
        replicas=replicas,
        trainer=trainer,
        leasing=leasing,
        gate=Gate(policy, artifacts=artifacts, store=store, replicas=replicas, prover=prover, evaluation=evaluation),
        shadow=Shadow(name, policy, store=store, replicas=replicas, scorer=scorer, leasing=leasing, status=status),
        retirement=Retirement(name, policy.base, policy.schedule.max_staleness, store=store, replicas=replicas),
        status=status,
    )
    return PolicyLoop(name, policy, artifacts, parts)


def _evaluation(name: str, policy: PolicyConfig, trainer: Trainer, scorer: Scorer) -> Heldout | None:
    if policy.gate.heldout is None:
        return None
    return Heldout(name, policy.seed, policy.gate, trainer, scorer, heldout.read(Path(policy.gate.heldout)))


def _probes(policy: PolicyConfig, evaluation: Heldout | None) -> list[list[dict[str, str]]]:
    """The prompts of the activation proof: the first held-out ones, else the built-in ones; at most `gate.probes`."""
    if evaluation is not None:
        return evaluation.chats[: policy.gate.probes]
    return [[{"role": "user", "content": text}] for text in proof.PROBES[: policy.gate.probes]]


async def _until(stop: asyncio.Event, worker: Worker, loops: list[PolicyLoop], store: Store) -> None:
    """Run the loops until `stop` is set. Raises the first fatal error."""
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(loop.run(), name=loop.name) for loop in loops]
    tasks += [asyncio.create_task(loop.run_shadow(), name=f"{loop.name} shadow") for loop in loops]
    tasks += [asyncio.create_task(_expire(store), name="expire"), asyncio.create_task(stop.wait(), name="stop")]
    pending = set(tasks)
    try:
        while pending and not stop.is_set():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        worker.stopping = True
        await end(tasks)
        await asyncio.gather(*(loop.stop() for loop in loops))


async def _expire(store: Store) -> None:
    while True:
        with contextlib.suppress(StoreUnavailable):
            await store.feedback.expire()
        await asyncio.sleep(EXPIRE_SECONDS)


@contextmanager
def only_one(data: Path) -> Iterator[None]:
    """Hold the learner lock of the data directory, which the kernel releases if the process dies. Raises ConfigError if it is held."""
    folder = data / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock", busy=ConfigError(f"another learner works on {data}; stop it first")):
        yield
