"""One update in four phases, top to bottom.

    1. score     log-probs of the reference (adapter off) and of the policy before the step, where they are needed
    2. targets   the algorithm's advantages or targets of the whole batch, from rewards and scores
    3. learn     micro-batch after micro-batch: forward, the algorithm's loss, backward
    4. step      clip the gradient, check it, move the weights

Phases 3 and 4 are repeated `epochs` times. However the batch is cut into micro-batches, the gradient is that of the whole batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from learner import losses
from learner.algorithms.base import Algorithm, Targets
from learner.algorithms.terms import Terms, Whole
from learner.batch import Batch, Packed, micro_batches, pack
from learner.examples import Sequence
from learner.policy.model import Policy
from learner.policy.optim import AdamW
from ratchet import clock
from ratchet.errors import GateRefused
from ratchet.types import Example

TOKEN_BUDGET = 512
"""Tokens of a micro-batch, prompts counted once. Bounds memory: about 0.6 MB a token of logits at 49k entries, with gradients."""

Progress = Callable[[int, int], None]
"""Called after each micro-batch with the answer tokens that passed through the model so far, and how many will in all."""


@dataclass(frozen=True)
class StepReport:
    """The result of a step.

    `loss`, `kl` (nats a token to the base; None without a reference) and `metrics` are measured before the weights move; with
    several epochs their mean. `grad_norm`: the largest, before clipping. `tokens`: of all answers. `learned`: ids of the examples.
    `state`: the algorithm's own after the step. Times in seconds.
    """

    loss: float
    kl: float | None
    grad_norm: float
    tokens: int
    learned: list[str]
    state: dict[str, Any]
    seconds: float
    learning_rate: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class _Epoch:
    """Loss, metrics and gradient norm of one pass over the batch."""

    loss: float
    metrics: dict[str, float]
    grad_norm: float


def step(
    policy: Policy,
    optimiser: AdamW,
    examples: list[Example],
    algorithm: Algorithm[Any],
    *,
    state: dict[str, Any] | None = None,
    progress: Progress | None = None,
    token_budget: int = TOKEN_BUDGET,
) -> StepReport:
    """Train `policy` on `examples`, all of which must teach (`algorithm.examine`). The caller commits the result or restores the old state.

    `state`: the algorithm's own, as the report of the step before has it. GateRefused("sanity"): no answer to learn from, or a loss
    or gradient norm that is not finite; weights and optimiser are then as they were.
    """
    began = clock.monotonic()
    sequences = [s for place, example in enumerate(examples) for s in algorithm.sequences(example, place)]
    if not sequences:
        raise GateRefused("sanity", "no answer to learn from")
    work = _Update(policy, algorithm, sequences, token_budget, progress)
    data = work.score()
    targets = algorithm.targets(data, state or {})
    epochs = _epochs(work, optimiser, data, targets)
    metrics = {key: sum(epoch.metrics[key] for epoch in epochs) / len(epochs) for key in epochs[0].metrics}
    kl = metrics.pop("kl", None)
    return StepReport(
        loss=sum(epoch.loss for epoch in epochs) / len(epochs),
        kl=kl if algorithm.uses_reference else None,
        grad_norm=max(epoch.grad_norm for epoch in epochs),
        tokens=data.whole.tokens,
        learned=[example.id for example in examples],
        state=targets.state,
        seconds=clock.monotonic() - began,
        learning_rate=optimiser.learning_rate,
        metrics=metrics,
    )


def _epochs(work: _Update, optimiser: AdamW, data: Batch, targets: Targets) -> list[_Epoch]:
    """Phases 3 and 4, `epochs` times. Where a later one is refused, the steps before it are undone."""
    count = work.algorithm.config.epochs
    before = (work.policy.adapter_state(), optimiser.state()) if count > 1 else None
    try:
        return [_epoch(work, optimiser, data, targets) for _ in range(count)]
    except GateRefused:
        if before is not None:
            work.policy.set_adapter_state(before[0])
            optimiser.load_state(before[1])
        raise


def _epoch(work: _Update, optimiser: AdamW, data: Batch, targets: Targets) -> _Epoch:
    optimiser.zero()
    loss, metrics = work.learn(data, targets)
    norm = optimiser.clip()
    if not (math.isfinite(loss) and math.isfinite(norm)):
        optimiser.zero()
        raise GateRefused("sanity", f"loss {loss} or gradient norm {norm} is not finite")
    optimiser.step()
    return _Epoch(loss, metrics, norm)


class _Update:
    """The passes of one batch, cut into micro-batches, through the model."""

    def __init__(
        self, policy: Policy, algorithm: Algorithm[Any], sequences: list[Sequence], budget: int, progress: Progress | None
    ) -> None:
        self.policy = policy
        self.algorithm = algorithm
        self._sequences = sequences
        self._parts = micro_batches(sequences, budget, together=algorithm.together)
        self._progress = progress
        # With one epoch the policy before the step is the current one, so it needs no pass of its own.
        self._scores_old = algorithm.uses_old or algorithm.config.epochs > 1
        self._shape = (len(sequences), max(len(s.token_ids) for s in sequences))
        self._done = 0
        self._total = sum(len(s.token_ids) for s in sequences) * (algorithm.uses_reference + self._scores_old + algorithm.config.epochs)

    def score(self) -> Batch:
        """Phase 1."""
        reference = self._scored(adapter=False) if self.algorithm.uses_reference else None
        return Batch(self._sequences, self._scored(adapter=True) if self._scores_old else None, reference)

    def learn(self, data: Batch, targets: Targets) -> tuple[float, dict[str, float]]:
        """Phase 3: the gradient of the whole batch, added up part by part. Returns its loss and metrics."""
        whole = replace(data.whole, constants=targets.constants)
        values = targets.values.to(self.policy.device, torch.float32)
        total, metrics = 0.0, dict[str, float]()
        for rows, packed in self._packed():
            log_probs = self.policy.packed_log_probs(packed)
            share = self.algorithm.loss(self._terms(log_probs, rows, packed, data, values, whole))
            share.loss.backward()  # type: ignore[no-untyped-call]
            total += float(share.loss.detach())
            for key, value in share.metrics.items():
                metrics[key] = metrics.get(key, 0.0) + value
            self._passed(packed)
        return total, metrics

    def _scored(self, *, adapter: bool) -> Tensor:
        """Log-probs [B, T] of all sequences, without a gradient."""
        scores = torch.zeros(self._shape, device=self.policy.device)
        for rows, packed in self._packed():
            with torch.inference_mode():
                found = self.policy.packed_log_probs(packed, adapter=adapter)
            scores[rows, : found.shape[1]] = found
            self._passed(packed)
        return scores

    def _terms(self, log_probs: Tensor, rows: slice, packed: Packed, data: Batch, values: Tensor, whole: Whole) -> Terms:
        """The inputs of the loss of one micro-batch. `values`: the targets of the whole batch."""
        place = (rows, slice(log_probs.shape[1]))
        return losses.terms(
            log_probs,
            log_probs if data.old is None else data.old[place],
            values[rows] if values.ndim == 1 else values[place],
            packed.mask,
            None if data.reference is None else data.reference[place],
            _rollout(self._sequences[rows], packed),
            whole,
        )

    def _packed(self) -> Iterator[tuple[slice, Packed]]:
        """The micro-batches, with their rows in the batch. Packed when they are needed: together they would not fit in memory."""
        first = 0
        for part in self._parts:
            yield slice(first, first + len(part)), pack(part, self.policy.device)
            first += len(part)

    def _passed(self, packed: Packed) -> None:
        self._done += len(packed.target)
        if self._progress is not None:
            self._progress(self._done, self._total)


def _rollout(part: list[Sequence], packed: Packed) -> Tensor | None:
    """The engine's log-probs [b, T]; NaN for answers without, None if no answer has any."""
    if not any(s.logprobs for s in part):
        return None
    values = [value for s in part for value in (s.logprobs or [math.nan] * len(s.token_ids))]
    return packed.spread(torch.tensor(values, device=packed.ids.device))
