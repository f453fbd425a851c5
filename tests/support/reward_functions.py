"""Reward functions for tests, named in their configurations as `tests.support.reward_functions:NAME`."""

from __future__ import annotations

import math
from typing import Any

Messages = list[dict[str, Any]]


def early_letters(prompt: Messages, answer: str) -> float:
    """The share of the answer's characters that come before `P`: a random model's answers differ in it."""
    return sum(character < "P" for character in answer) / max(1, len(answer))


def early_letters_of_learn(prompt: Messages, answer: str) -> float:
    """`early_letters` of answers to "learn"; 1 for all others."""
    return early_letters(prompt, answer) if prompt[-1]["content"] == "learn" else 1.0


def constant(prompt: Messages, answer: str) -> float:
    return 1.0


def echo(prompt: Messages, answer: str) -> float:
    """What the prompt says it is worth."""
    return float(prompt[-1]["content"])


def nan(prompt: Messages, answer: str) -> float:
    return math.nan


def raising(prompt: Messages, answer: str) -> float:
    raise KeyError("no score")


not_a_function = 3
