"""The weights of one policy. All torch calls run in one worker thread, so that the event loop stays responsive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from learner import update
from learner.algorithms.base import Algorithm
from learner.policy import checkpoint
from learner.policy.model import Policy
from learner.policy.optim import AdamW
from ratchet import models
from ratchet.adapters import ArtifactStore
from ratchet.config.model import LearnerConfig, PolicyConfig
from ratchet.errors import RatchetError
from ratchet.types import Example, PolicyVersionRecord

Result = TypeVar("Result")


class Abandoned(RatchetError):
    """The work was abandoned because the process is stopping. The lease is kept, so the next start repeats it."""


class Worker:
    """One thread for all torch work of the process, since a Policy may have only one caller at a time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="torch")
        self.stopping = False

    async def run(self, work: Callable[..., Result], *args: Any) -> Result:
        """Run `work(*args)` in the thread. Raises Abandoned if the process is stopping."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._unless_stopping, work, *args)

    def check(self) -> None:
        """Call between pieces of work. Raises Abandoned if the process is stopping."""
        if self.stopping:
            raise Abandoned("the learner is stopping")

    def stop(self) -> None:
        """Drop waiting work. Running work ends at its next `check`."""
        self.stopping = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _unless_stopping(self, work: Callable[..., Result], *args: Any) -> Result:
        self.check()
        return work(*args)


class Trainer:
    """Weights and optimiser of one policy. `at` restores those of a version; version 0 is the untrained base."""

    def __init__(
        self, name: str, config: PolicyConfig, *, model_path: str, artifacts: ArtifactStore, learner: LearnerConfig, worker: Worker
    ) -> None:
        self.config = config
        self.worker = worker
        self.algorithm: Algorithm[Any] = config.algorithm.make()
        self._model_path = model_path
        self._learner = learner
        self._name = name
        self._artifacts = artifacts
        self._policy: Policy | None = None
        self._optimiser: AdamW
        self._first: dict[str, Tensor]
        self._state: dict[str, Any] = {}
        self._version: int | None = None

    async def at(self, version: PolicyVersionRecord) -> None:
        """Restore weights and optimiser from a version's checkpoint. Raises AdapterError if it is damaged, ConfigError without a model."""
        if self._version != version.version:
            self._version = None
            await self.worker.run(self._restore, version)
            self._version = version.version

    async def update(self, examples: list[Example], progress: update.Progress) -> update.StepReport:
        """Learn one step from where `at` set the weights. They are the candidate's afterwards: call `save` or `at` next.

        GateRefused("sanity"): nothing finite to learn; Abandoned: the process is stopping.
        """
        self._version = None

        def watched(done: int, total: int) -> None:
            self.worker.check()
            progress(done, total)

        def work() -> update.StepReport:
            return update.step(self.policy, self._optimiser, examples, self.algorithm, state=self._state, progress=watched)

        report = await self.worker.run(work)
        self._state = report.state
        return report

    async def save(self, step: int, version: int) -> str:
        """Write a durable checkpoint of the weights, as those of `version`. Return its digest."""

        def write() -> str:
            moving, drawn = (self.policy, self._optimiser), {"seed": self.config.seed}
            return checkpoint.save(self._artifacts, self._name, *moving, step=step, rng=drawn, algorithm=self._state)

        digest = await self.worker.run(write)
        self._version = version
        return digest

    async def window(self) -> int:
        """Tokens that the model attends to."""
        await self.loaded()
        return self.policy.window

    async def adapter_files(self) -> dict[str, bytes]:
        """Return the adapter's two files."""
        return await self.worker.run(self.policy.adapter_files)

    async def base_digest(self) -> str:
        """Return the sha256 (hex) of the base's weights."""
        return await self.worker.run(lambda: self.policy.base_digest)

    async def encode(self, messages: list[dict[str, Any]]) -> list[int]:
        """Return the prompt ids of a chat, by the base's own template."""
        await self.loaded()
        return await self.worker.run(self.policy.encode, messages)

    async def log_probs(self, prompt_ids: list[int], answers: list[list[int]], *, adapter: bool) -> list[list[float]]:
        """Log-probs (nats, temperature 1) of each answer's tokens, with the adapter or without."""
        await self.loaded()

        def work() -> list[list[float]]:
            with torch.inference_mode():
                rows = self.policy.log_probs(prompt_ids, answers, adapter=adapter)[0].tolist()
            return [row[: len(answer)] for row, answer in zip(rows, answers, strict=True)]

        return await self.worker.run(work)

    async def sweep(self, keep: set[str]) -> list[str]:
        """Delete the checkpoints that no committed version needs. Return the folders deleted."""
        return await asyncio.to_thread(checkpoint.sweep, self._artifacts, self._name, keep)

    async def loaded(self) -> None:
        """Load the model if it is not loaded yet. It is loaded on first use, so that an idle learner holds none in memory."""
        if self._policy is None:
            await self.worker.run(self._load)

    @property
    def policy(self) -> Policy:
        """The model; only once loaded."""
        assert self._policy is not None
        return self._policy

    def _load(self) -> None:
        config, learner = self.config, self._learner
        path = Path(models.resolve(self._model_path))
        policy = Policy.load(path, config.lora, seed=config.seed, device=learner.device, threads=learner.threads)
        algorithm = config.algorithm
        self._optimiser = AdamW(
            policy.parameters(),
            learning_rate=algorithm.learning_rate,
            weight_decay=algorithm.weight_decay,
            max_grad_norm=algorithm.max_grad_norm,
        )
        self._first = policy.adapter_state()
        self._policy = policy

    def _restore(self, version: PolicyVersionRecord) -> None:
        if self._policy is None:
            self._load()
        self._optimiser.zero()
        if version.checkpoint:
            found = checkpoint.load(self._artifacts, self._name, version.checkpoint)
            found.restore(self.policy, self._optimiser)
            self._state = found.algorithm
        else:
            self.policy.set_adapter_state(self._first)
            self._optimiser.load_state({})
            self._state = {}
