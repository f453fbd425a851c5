"""Samples of interleaved rounds and their statistics: medians, and differences and ratios taken within a round. Pure functions."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

CERTAINTY = 0.95


class Estimate(NamedTuple):
    """A median, and the bounds between which the true median lies with the certainty that was asked for."""

    median: float
    low: float
    high: float


def estimate(values: Sequence[float], certainty: float = CERTAINTY) -> Estimate:
    """The median of `values` and its interval by order statistics, which assumes nothing about their distribution.

    Source: Conover, Practical Nonparametric Statistics, 3.2. Fewer than six values bound nothing at 95 %: the interval is
    infinite. NaNs are left out; NaN if nothing remains.
    """
    known = sorted(value for value in values if not math.isnan(value))
    if not known:
        return Estimate(math.nan, math.nan, math.nan)
    rank = _rank(len(known), certainty)
    if rank == 0:
        return Estimate(median(known), -math.inf, math.inf)
    return Estimate(median(known), known[rank - 1], known[-rank])


def _rank(count: int, certainty: float) -> int:
    """The largest k for which the k-th smallest and the k-th largest of `count` values bound the median; 0 if there is none."""
    rank, below = 0, 0.0
    while rank < count // 2:
        below += math.comb(count, rank) / 2**count
        if 1 - 2 * below < certainty:
            break
        rank += 1
    return rank


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0-1) of `values` lie, by nearest rank; NaN of no values."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def rotated(names: Sequence[str], turn: int) -> list[str]:
    """`names`, starting at another one each turn, so that none is always the first."""
    at = turn % len(names) if names else 0
    return [*names[at:], *names[:at]]


@dataclass
class Samples:
    """For each gateway and figure the value of each round, in order."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))

    @classmethod
    def of(cls, values: Mapping[str, Mapping[str, Sequence[float]]]) -> Samples:
        """Samples from what was read from JSON."""
        samples = cls()
        for name, figures in values.items():
            for figure, found in figures.items():
                samples.values[name][figure] += found
        return samples

    def add(self, name: str, figure: str, value: float) -> None:
        """Append the value of one round."""
        self.values[name][figure].append(value)

    def of_figure(self, name: str, figure: str) -> list[float]:
        """The values of all rounds; empty if it was not measured."""
        return self.values[name][figure] if name in self.values and figure in self.values[name] else []

    def median(self, name: str, figure: str) -> float:
        """The median over the rounds; NaN if it was not measured."""
        return estimate(self.of_figure(name, figure)).median

    def differences(self, figure: str, name: str, other: str) -> list[float]:
        """`name`'s value minus `other`'s, round by round."""
        pairs = zip(self.of_figure(name, figure), self.of_figure(other, figure), strict=False)
        return [a - b for a, b in pairs]

    def ratios(self, figure: str, name: str, other: str) -> list[float]:
        """`name`'s value divided by `other`'s, round by round."""
        pairs = zip(self.of_figure(name, figure), self.of_figure(other, figure), strict=False)
        return [a / b for a, b in pairs if b > 0 and not math.isnan(a)]

    def ratio(self, figure: str, name: str, other: str) -> float:
        """The median of the ratios; NaN if the two share no round."""
        return estimate(self.ratios(figure, name, other)).median


@dataclass(frozen=True)
class Bar:
    """One figure to reach. `found` is NaN where it was not measured."""

    what: str
    found: float
    most: float
    unit: str = "x"

    @property
    def met(self) -> bool | None:
        return None if math.isnan(self.found) else self.found <= self.most

    @property
    def verdict(self) -> str:
        """`met`, `missed by 12 %`, or `not measured`."""
        if self.met is None:
            return "not measured"
        return "met" if self.met else f"missed by {(self.found / self.most - 1) * 100:.0f} %"

    def row(self) -> tuple[str, str, str, str]:
        return self.what, formatted(self.most, self.unit), formatted(self.found, self.unit), self.verdict


def formatted(value: float, unit: str = "") -> str:
    """A figure as text with two or three digits; `-` for NaN."""
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "?"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}{unit if unit in ('', 'x') else ' ' + unit}"


def spread(found: Estimate, unit: str = "") -> str:
    """`12.3 (11.0 to 14.1)`: a median and its interval."""
    if math.isnan(found.median):
        return "-"
    return f"{formatted(found.median, unit)} ({formatted(found.low, unit)} to {formatted(found.high, unit)})"
