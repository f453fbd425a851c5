"""Rewards from Python functions: one number for each answer, or a reason why there is none. Missing is not zero."""

from __future__ import annotations

import importlib
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

from ratchet.config.model import PythonRewardConfig
from ratchet.errors import ConfigError, RatchetError

log = logging.getLogger(__name__)

RewardFunction = Callable[[list[dict[str, Any]], str], float]
"""`f(prompt, answer)`: the chat's messages and the answer's text to a finite number."""


class Unscored(RatchetError):
    """An answer has no reward. `reason` is one word, used to count."""

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(why)
        self.reason = reason


class Scorer:
    """The weighted sum of a policy's reward functions."""

    def __init__(self, configs: Sequence[PythonRewardConfig]) -> None:
        """Import the functions. Raises ConfigError if a module or a function does not exist."""
        self._parts = [(config.path, config.weight, _import(config.path)) for config in configs]

    def __bool__(self) -> bool:
        return bool(self._parts)

    def score(self, prompt: list[dict[str, Any]], answer: str) -> float:
        """Return the reward of one answer. Raises Unscored if a function raised or returned no finite number."""
        return math.fsum(weight * _call(path, function, prompt, answer) for path, weight, function in self._parts)

    def score_all(self, prompt: list[dict[str, Any]], answers: Sequence[str]) -> list[float]:
        """Return the rewards [n] of a group. Raises Unscored if any answer has none."""
        return [self.score(prompt, answer) for answer in answers]

    def try_score(self, prompt: list[dict[str, Any]], answer: str) -> float | None:
        """Return the reward of one answer, or None if it has none."""
        try:
            return self.score(prompt, answer)
        except Unscored:
            return None


def _call(path: str, function: RewardFunction, prompt: list[dict[str, Any]], answer: str) -> float:
    try:
        value = float(function(prompt, answer))
    except Exception as error:
        # No exception of a user's function may stop the loop. The text of the answer must not be logged.
        log.warning("reward %s raised %s", path, type(error).__name__)
        raise Unscored("reward_raised", f"{path} raised {type(error).__name__}") from error
    if not math.isfinite(value):
        raise Unscored("reward_not_finite", f"{path} gave {value}")
    return value


def _import(path: str) -> RewardFunction:
    module, _, name = path.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"reward {path}: {error}") from error
    if not callable(function):
        raise ConfigError(f"reward {path}: not a function")
    found: RewardFunction = function
    return found
