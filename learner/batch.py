"""Sequences -> micro-batches -> packed tensors. Deterministic: the order is that of the lease, and nothing is random.

A packed row holds segments end to end with no padding. The answers of an example that have one prompt hang from a single copy of
it like branches from a trunk: each sees the prompt and itself, never its siblings (docs/learner-math.md, "Shared prompts").
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from learner.algorithms.terms import Whole
from learner.examples import Sequence


@dataclass(frozen=True)
class Batch:
    """The B sequences of a step and their scored log-probs (nats) [B, T], T the tokens of the longest answer; zero past an answer's end.

    `old` are those of the policy before the step, `reference` those of the base; None where they are not needed.
    """

    sequences: list[Sequence]
    old: Tensor | None = None
    reference: Tensor | None = None

    @property
    def lengths(self) -> Tensor:
        """Answer tokens of each sequence [B]."""
        return torch.tensor([len(s.token_ids) for s in self.sequences])

    @property
    def mask(self) -> Tensor:
        """True [B, T] on answer tokens."""
        inside: Tensor = torch.arange(self.whole.longest)[None] < self.lengths[:, None]
        return inside

    @property
    def rewards(self) -> Tensor:
        """The reward of each sequence [B], float64. ValueError: one has none."""
        rewards = [s.reward for s in self.sequences if s.reward is not None]
        if len(rewards) < len(self.sequences):
            raise ValueError("a sequence has no reward of its own")
        return torch.tensor(rewards, dtype=torch.float64)

    @property
    def groups(self) -> Tensor:
        """The example of each sequence [B], numbered from 0."""
        numbered: Tensor = torch.unique(torch.tensor([s.example for s in self.sequences]), return_inverse=True)[1]
        return numbered

    @property
    def whole(self) -> Whole:
        """The constants that every micro-batch shares."""
        lengths = [len(s.token_ids) for s in self.sequences]
        return Whole(len(lengths), sum(lengths), max(lengths))


def micro_batches(sequences: Iterable[Sequence], budget: int, *, together: bool = False) -> list[list[Sequence]]:
    """Cut `sequences`, in order, so that no part has more than `budget` tokens, a shared prompt counted once.

    `together`: the sequences of an example stay in one part. What is alone above the budget is a part of its own.
    """
    units = [list(unit) for _, unit in groupby(sequences, key=lambda s: s.example)] if together else [[s] for s in sequences]
    parts: list[list[Sequence]] = []
    spent = 0
    for unit in units:
        cost = _tokens(unit, parts[-1][-1] if parts else None)
        if not parts or spent + cost > budget:
            parts.append([])
            spent, cost = 0, _tokens(unit, None)
        parts[-1] += unit
        spent += cost
    return parts


def _tokens(unit: list[Sequence], before: Sequence | None) -> int:
    """The tokens that `unit` adds to a part whose last sequence is `before`."""
    total = 0
    for sequence in unit:
        shares = before is not None and _trunk(before) == _trunk(sequence)
        total += len(sequence.token_ids) + (0 if shares else len(sequence.prompt_ids))
        before = sequence
    return total


def _trunk(sequence: Sequence) -> tuple[int, list[int], float]:
    """The key that neighbours have in common if they share one copy of a prompt."""
    return sequence.example, sequence.prompt_ids, sequence.temperature


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
    """Pack `sequences` into one row; neighbours of one example and prompt share it. ValueError: an empty prompt or answer."""
    if not sequences or not all(s.prompt_ids and s.token_ids for s in sequences):
        raise ValueError("a sequence needs a prompt and an answer of at least one token")
    row = _Row()
    for _, branches in groupby(enumerate(sequences), key=lambda item: _trunk(item[1])):
        row.add(list(branches))
    return row.tensors((len(sequences), max(len(s.token_ids) for s in sequences)), torch.device(device))


class _Row:
    """A packed row that grows by one prompt and its answers at a time."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.trunk: list[int] = []
        self.branch: list[int] = []
        self.predictors: list[int] = []
        self.temperature: list[float] = []
        self.answers: list[tuple[int, int, int, int]] = []

    def add(self, branches: list[tuple[int, Sequence]]) -> None:
        first = branches[0][1]
        trunk = len(self.ids)
        self._feed(first.prompt_ids, 0, trunk, branch=0)
        shared = self._predict(len(self.ids) - 1, first.temperature)
        for row, sequence in branches:
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
