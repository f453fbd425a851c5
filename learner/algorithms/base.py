"""The interface of an algorithm: its configuration, the examples it takes, its targets and its loss. Each has a file in this folder.

A step calls an algorithm in this order (`learner.update.step`; docs/learner.md shows a complete one):

    examine(examples, window)   which examples teach, and why the others do not
    sequences(example, place)   the answers of an example that the model scores
    targets(batch, state)       advantages or targets of the whole batch, after log-probs were scored
    loss(terms)                 the share of one micro-batch in the loss of the batch, with a gradient

The gateway reads the configurations, so importing an algorithm must not import torch: do that inside the functions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from learner.examples import Sequence, answers, defect, flat
from ratchet.config.algorithm import AlgorithmConfig
from ratchet.types import Example, ExampleKind

if TYPE_CHECKING:
    from torch import Tensor

    from learner.algorithms.terms import PolicyLoss, Terms
    from learner.batch import Batch

Config = TypeVar("Config", bound=AlgorithmConfig)
Age = Literal["fresh", "any"]
"""`fresh`: answers of the last `schedule.max_staleness` live versions only. `any`: answers of all versions."""


@dataclass(frozen=True)
class Examined:
    """`teach`: the examples to learn from. `aside`: why each of the others is not, in one word, by its id."""

    teach: list[Example]
    aside: dict[str, str]


@dataclass(frozen=True)
class Targets:
    """What a batch is to learn: `values` [B] or [B, T], one a sequence or one a token.

    `state` is the algorithm's own state after this step. `constants` are further numbers of the whole batch that the loss needs
    (`Terms.whole.constants`).
    """

    values: Tensor
    state: dict[str, Any] = field(default_factory=dict)
    constants: Mapping[str, float] = field(default_factory=dict)


class Algorithm(ABC, Generic[Config]):
    """One way to learn. It holds its configuration and nothing else: `state` is passed in and handed back."""

    kinds: ClassVar[Mapping[ExampleKind, Age]]
    """The kinds of examples that it takes, and how old their answers may be."""

    together: ClassVar[bool] = False
    """Whether the sequences of an example must be in one micro-batch, because the loss compares them."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def uses_reference(self) -> bool:
        """Whether log-probs of the reference policy (the base) are needed. They cost a forward pass."""
        return False

    @property
    def uses_old(self) -> bool:
        """Whether `targets` reads the policy's own log-probs. They cost a forward pass, unless `epochs` above 1 need it anyway."""
        return False

    @abstractmethod
    def examine(self, examples: list[Example], window: int) -> Examined:
        """Tell the examples that teach from the others. `window`: tokens that the model attends to."""

    def sequences(self, example: Example, place: int) -> list[Sequence]:
        """The answers of an example that the model scores. `place`: the example's in the batch. Default: the rated ones."""
        return answers(example, place)

    @abstractmethod
    def targets(self, batch: Batch, state: dict[str, Any]) -> Targets:
        """Advantages or targets of the whole batch, without a gradient. `state` is empty before the first step."""

    @abstractmethod
    def loss(self, terms: Terms) -> PolicyLoss:
        """The share of a micro-batch in the loss of the batch: shares of any cut add up to the same loss."""


def sort_out(examples: Iterable[Example], reason: Callable[[Example], str]) -> Examined:
    """Set aside the examples for which `reason` gives one."""
    found = [(example, reason(example)) for example in examples]
    return Examined([example for example, why in found if not why], {example.id: why for example, why in found if why})


def groups_that_teach(examples: Iterable[Example], window: int) -> Examined:
    """Set aside groups with a defect and, as `zero_spread`, those whose rewards are all equal: they say not which answer is better."""
    return sort_out(examples, lambda group: defect(group, window) or ("zero_spread" if flat(group) else ""))
