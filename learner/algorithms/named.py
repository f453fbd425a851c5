"""The pure functions of the algorithms by name: what `learner.advantages.estimate` and `learner.losses.policy_loss` look up.

Optional, for research: an update calls the algorithm itself and looks up no name.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from learner import algorithms
from ratchet.config.registry import ALGORITHMS

if TYPE_CHECKING:
    from torch import Tensor

    from learner.algorithms.terms import PolicyLoss

Estimator = Callable[..., "Tensor"]
"""`f(rewards [B], group [B], lengths [B] or None, **params) -> advantages [B]`; groups are numbered from 0."""
Loss = Callable[..., "PolicyLoss"]
"""`f(terms, *, beta, **params) -> PolicyLoss`."""
Function = TypeVar("Function", bound=Callable[..., object])

ESTIMATORS: dict[str, Estimator] = {}
LOSSES: dict[str, Loss] = {}


def estimator(name: str) -> Callable[[Function], Function]:
    """Decorate an advantage estimator: `estimate` finds it by `name`."""
    return _entered(ESTIMATORS, name)


def policy_loss(name: str) -> Callable[[Function], Function]:
    """Decorate a policy loss: `learner.losses.policy_loss` finds it by `name`."""
    return _entered(LOSSES, name)


def find(table: Mapping[str, Function], name: str, what: str) -> Function:
    """The function called `name` in ESTIMATORS or LOSSES. ValueError: there is none; it names those there are."""
    if name not in table:
        _import_all()
        if name in ALGORITHMS.names():
            ALGORITHMS.model(name)  # a plug-in's file enters its functions when it is imported
    if name not in table:
        raise ValueError(f"no {what} {name!r}; known: {', '.join(sorted(table))}")
    return table[name]


def _import_all() -> None:
    for module in pkgutil.iter_modules(algorithms.__path__):
        importlib.import_module(f"{algorithms.__name__}.{module.name}")


def _entered(table: dict[str, Any], name: str) -> Callable[[Function], Function]:
    def enter(function: Function) -> Function:
        table[name] = function
        return function

    return enter
