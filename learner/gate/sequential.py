"""Paired sequential tests of rewards: pass (not worse by `delta`), worse, or undecided. They stay valid however often they are
evaluated.

A candidate and an anchor (the live version, the best so far, the base) answer the same prompt, and one scorer rates both
answers. Their differences d in [-width, width] are paired observations with mean mu = candidate - anchor. Two betting
e-processes run beside each other (Waudby-Smith & Ramdas 2010.09686, sections 4.1 and B.3):

    pass   rejects mu <= -delta        worse   rejects mu >= ceiling     (0 against the live version, -delta against older anchors)

An e-process starts at 1 and has an expected value of at most 1 at any stopping time while its hypothesis is true, so it ever
reaches 1 / alpha with probability at most alpha (Ville). No horizon is fixed and looking after every pair costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Answer = Literal["pass", "worse", "undecided"]

LARGEST_BET = 0.75
"""Largest share of the capital that one observation may lose."""


class Bet:
    """The e-process against "the mean of values in [0, 1] is at most `null`".

    K_t = prod_i (1 + lambda_i (y_i - null)), where lambda_i is the approximate growth-rate optimum of the values before i
    (aGRAPA, 2010.09686 eq. 31), kept within [0, LARGEST_BET / null] so that K stays positive and nobody bets on the null's side.
    """

    def __init__(self, null: float) -> None:
        """`null` in [0, 1]. At 0 the hypothesis is refuted by the first positive value and no bet is needed: lambda stays bounded."""
        self.log_e = 0.0
        self._null = null
        self._limit = LARGEST_BET / max(null, 1e-6)
        # A first value at 1/2 and a first squared deviation of 1/4, as the source proposes.
        self._count, self._sum, self._squares = 1.0, 0.5, 0.25

    def add(self, value: float) -> None:
        """One more value in [0, 1]."""
        mean, variance = self._sum / self._count, self._squares / self._count
        edge = mean - self._null
        stake = min(max(edge / (variance + edge * edge), 0.0), self._limit)
        self.log_e += math.log1p(stake * (value - self._null))
        self._count += 1
        self._sum += value
        self._squares += (value - self._sum / self._count) ** 2


class Comparison:
    """Compares the candidate with one anchor by one scorer. The first verdict reached is final."""

    def __init__(self, *, delta: float, alpha: float, ceiling: float = 0.0, alpha_worse: float = 0.05, width: float = 1.0) -> None:
        """`alpha`: chance of passing a candidate whose mean is -delta or less; `alpha_worse`: of calling one worse whose mean is `ceiling`
        or more. `width`: the largest size of a difference, the reward's maximum minus its minimum. ValueError: a bound has no meaning.
        """
        if not (0 < delta <= width and -delta <= ceiling < width and 0 < alpha < 1 and 0 < alpha_worse < 1):
            raise ValueError(f"delta {delta}, ceiling {ceiling}, width {width}, alphas {alpha} and {alpha_worse} do not make a test")
        self.answer: Answer = "undecided"
        self.pairs = 0
        self.total = 0.0
        self._width = width
        self._enough, self._enough_worse = -math.log(alpha), -math.log(alpha_worse)
        self._not_worse = Bet((width - delta) / (2 * width))
        self._worse = Bet((width - ceiling) / (2 * width))

    @property
    def mean(self) -> float | None:
        """The mean difference of the pairs added."""
        return self.total / self.pairs if self.pairs else None

    def add(self, difference: float) -> Answer:
        """One more pair's difference, candidate minus anchor. ValueError: it is not within the width (NaN is not)."""
        if not abs(difference) <= self._width:
            raise ValueError(f"a difference of {difference} is not within {self._width}")
        self.pairs += 1
        self.total += difference
        up = (self._width + difference) / (2 * self._width)
        self._not_worse.add(up)
        self._worse.add(1 - up)
        if self.answer == "undecided":
            if self._worse.log_e >= self._enough_worse:
                self.answer = "worse"
            elif self._not_worse.log_e >= self._enough:
                self.answer = "pass"
        return self.answer


def together(answers: Iterable[Answer]) -> Answer:
    """The answer over anchors and scorers: `worse` if one is, `pass` if all do. `pass` needs no correction: every test must agree."""
    found = set(answers)
    if "worse" in found:
        return "worse"
    return "pass" if found <= {"pass"} else "undecided"


def spent(alpha: float, examination: int) -> float:
    """The share of `alpha` for the k-th examination (k >= 1): alpha / (k (k + 1)), which adds up to `alpha` over all of them.

    With it, the chance that any version is ever passed that is worse than its anchor by `delta` is `alpha`: losses do not add up.
    """
    return alpha / (examination * (examination + 1))


@dataclass(frozen=True)
class Anchor:
    """A version to compare with. `ceiling`: see `Comparison`; against the live version 0, against older ones -delta."""

    version: int
    ceiling: float


def anchors(live: int, best: int, delta: float) -> list[Anchor]:
    """Live, best so far and base (version 0), each once. All must pass, so that no later version is worse than any of them by `delta`.

    Older anchors call a candidate worse only below -delta: one as good as the live version must not be refused for what the
    live version lost within its allowance.
    """
    return [Anchor(live, 0.0), *(Anchor(version, -delta) for version in sorted({best, 0} - {live}))]
