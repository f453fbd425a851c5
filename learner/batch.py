"""Groups -> sequences with advantages -> micro-batches -> packed tensors. Deterministic: the lease's order, nothing drawn.

A packed row holds segments end to end with no padding. The answers of a group hang from one copy of its prompt like
branches from a trunk: each sees the prompt and itself, never its siblings (docs/learner-math.md, "Shared prompts").
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from learner import advantages
from ratchet.types import Choice, Example


@dataclass(frozen=True)
class Sequence:
    """One answer to learn from. `group` is its group's place in the batch; `logprobs` are the engine's, one a token."""

    group: int
    prompt_ids: list[int]
    token_ids: list[int]
    logprobs: list[float]
    temperature: float
    advantage: float


@dataclass(frozen=True)
class Batch:
    """What one update learns from, and what it had to leave out.

    `reward` is the mean over all answers of used and zero-spread groups; `skipped` groups miss ids, log-probs or rewards.
    """

    sequences: list[Sequence]
    used: list[str]
    zero_spread: list[str]
    skipped: list[str]
    reward: float

    @property
    def tokens(self) -> int:
        """Answer tokens."""
        return sum(len(s.token_ids) for s in self.sequences)


def build(groups: Iterable[Example], estimator: str, **params: Any) -> Batch:
    """The batch of `groups`, advantages estimated by `estimator` over all of them at once."""
    groups = list(groups)
    whole = [g for g in groups if is_whole(g)]
    mixed = [g for g in whole if has_spread(g)]
    rewards = [r for g in whole for r in g.rewards]
    return Batch(
        sequences=list(_sequences(mixed, estimator, params)),
        used=[g.id for g in mixed],
        zero_spread=[g.id for g in whole if not has_spread(g)],
        skipped=[g.id for g in groups if not is_whole(g)],
        reward=sum(rewards) / len(rewards) if rewards else 0.0,
    )


def is_whole(group: Example) -> bool:
    """Whether every answer was sampled (T > 0) and has exact ids, a log-prob for each and a reward, all finite: nothing is padded in."""
    found = group.interactions[0]
    numbers = [*group.rewards, *(value for c in found.choices for value in c.logprobs)]
    return (
        not found.untrainable
        and found.sampling.temperature > 0
        and bool(found.prompt_ids)
        and len(group.rewards) == len(found.choices) > 0
        and all(0 < len(c.token_ids) == len(c.logprobs) for c in found.choices)
        and all(map(math.isfinite, numbers))
    )


def has_spread(group: Example) -> bool:
    """Whether its rewards differ: only then do they say which answer was better."""
    return max(group.rewards) > min(group.rewards)


def _sequences(groups: list[Example], estimator: str, params: dict[str, Any]) -> Iterator[Sequence]:
    if not groups:
        return
    rows: list[tuple[int, Example, Choice]] = [(i, g, c) for i, g in enumerate(groups) for c in g.interactions[0].choices]
    rewards = torch.tensor([r for g in groups for r in g.rewards], dtype=torch.float64)
    ids = torch.tensor([i for i, _, _ in rows])
    lengths = torch.tensor([len(c.token_ids) for _, _, c in rows])
    estimated = advantages.estimate(estimator, rewards, ids, lengths=lengths, **params).tolist()
    for (i, group, choice), advantage in zip(rows, estimated, strict=True):
        found = group.interactions[0]
        yield Sequence(i, found.prompt_ids, choice.token_ids, choice.logprobs, found.sampling.temperature, advantage)


def micro_batches(sequences: Iterable[Sequence], budget: int) -> list[list[Sequence]]:
    """`sequences` in order, cut so that no part costs more than `budget` tokens, a shared prompt counted once.

    One sequence that alone is above the budget is a part of its own.
    """
    parts: list[list[Sequence]] = []
    spent = 0
    for sequence in sequences:
        shares = bool(parts) and parts[-1][-1].group == sequence.group
        cost = len(sequence.token_ids) + (0 if shares else len(sequence.prompt_ids))
        if not parts or spent + cost > budget:
            parts.append([])
            spent, cost = 0, len(sequence.token_ids) + len(sequence.prompt_ids)
        parts[-1].append(sequence)
        spent += cost
    return parts


@dataclass(frozen=True)
class Packed:
    """A micro-batch of B sequences as one row of N tokens, K of whose positions predict an answer token.

    ids, positions [1, N]; attend bool [1, 1, N, N]; predictors [K] (places in N, each once); temperature [K].
    For each of the M answer tokens: source [M] (which of the K predicts it), target [M] (its id), row and column [M] in [B, T].
    """

    ids: Tensor
    positions: Tensor
    attend: Tensor
    predictors: Tensor
    temperature: Tensor
    source: Tensor
    target: Tensor
    row: Tensor
    column: Tensor
    shape: tuple[int, int]

    def spread(self, values: Tensor) -> Tensor:
        """Values [M] of the answer tokens as [B, T], zero elsewhere."""
        empty = torch.zeros(self.shape, dtype=values.dtype, device=values.device)
        return empty.index_put((self.row, self.column), values)

    @property
    def mask(self) -> Tensor:
        """True [B, T] on answer tokens."""
        return self.spread(torch.ones_like(self.target, dtype=torch.bool))


def pack(sequences: list[Sequence], device: torch.device | str = "cpu") -> Packed:
    """One row of `sequences`; neighbours of one group share their prompt. ValueError: an empty prompt or answer."""
    if not sequences or not all(s.prompt_ids and s.token_ids for s in sequences):
        raise ValueError("a sequence needs a prompt and an answer of at least one token")
    row = _Row()
    for _, group in groupby(enumerate(sequences), key=lambda item: item[1].group):
        row.add(list(group))
    return row.tensors((len(sequences), max(len(s.token_ids) for s in sequences)), torch.device(device))


class _Row:
    """Lists that grow one group at a time."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.trunk: list[int] = []
        self.branch: list[int] = []
        self.predictors: list[int] = []
        self.temperature: list[float] = []
        self.answers: list[tuple[int, int, int, int]] = []

    def add(self, group: list[tuple[int, Sequence]]) -> None:
        first = group[0][1]
        trunk = len(self.ids)
        self._feed(first.prompt_ids, 0, trunk, branch=0)
        shared = self._predict(len(self.ids) - 1, first.temperature)
        for row, sequence in group:
            # The last token of an answer predicts nothing, so it is not fed.
            start = len(self.ids)
            self._feed(sequence.token_ids[:-1], len(first.prompt_ids), trunk, branch=row + 1)
            sources = [shared, *(self._predict(at, sequence.temperature) for at in range(start, len(self.ids)))]
            self.answers += [
                (source, token, row, column) for column, (source, token) in enumerate(zip(sources, sequence.token_ids, strict=True))
            ]

    def _feed(self, ids: list[int], position: int, trunk: int, branch: int) -> None:
        self.ids += ids
        self.positions += range(position, position + len(ids))
        self.trunk += [trunk] * len(ids)
        self.branch += [branch] * len(ids)

    def _predict(self, at: int, temperature: float) -> int:
        self.predictors.append(at)
        self.temperature.append(temperature)
        return len(self.predictors) - 1

    def tensors(self, shape: tuple[int, int], device: torch.device) -> Packed:
        source, target, row, column = torch.tensor(self.answers, device=device).unbind(1)
        return Packed(
            ids=torch.tensor([self.ids], device=device),
            positions=torch.tensor([self.positions], device=device),
            attend=self._attend(device),
            predictors=torch.tensor(self.predictors, device=device),
            temperature=torch.tensor(self.temperature, device=device),
            source=source,
            target=target,
            row=row,
            column=column,
            shape=shape,
        )

    def _attend(self, device: torch.device) -> Tensor:
        trunk, branch = torch.tensor(self.trunk, device=device), torch.tensor(self.branch, device=device)
        place = torch.arange(len(self.ids), device=device)
        same = (trunk[:, None] == trunk) & ((branch[:, None] == branch) | (branch == 0))
        return (same & (place[:, None] >= place))[None, None]
