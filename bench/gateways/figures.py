"""Samples of interleaved rounds and what is said of them: medians, and ratios within each round. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0-1) of `values` lie, by nearest rank; NaN of none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def rotated(names: Sequence[str], turn: int) -> list[str]:
    """`names` begun at another one each turn, so that nobody is always first."""
    at = turn % len(names) if names else 0
    return [*names[at:], *names[:at]]


@dataclass
class Samples:
    """For each gateway and figure its value in each round, in order."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))

    def add(self, name: str, figure: str, value: float) -> None:
        self.values[name][figure].append(value)

    def median(self, name: str, figure: str) -> float:
        """The median over the rounds that have it; NaN if none has."""
        found = self.values[name][figure] if name in self.values and figure in self.values[name] else []
        known = [value for value in found if not math.isnan(value)]
        return median(known) if known else math.nan

    def ratio(self, figure: str, name: str, other: str) -> float:
        """The median over the rounds of `name`'s figure divided by `other`'s in the same round; NaN if they share none."""
        if name not in self.values or other not in self.values:
            return math.nan
        pairs = zip(self.values[name][figure], self.values[other][figure], strict=False)
        found = [a / b for a, b in pairs if b > 0 and not math.isnan(a)]
        return median(found) if found else math.nan


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
        return self.what, told(self.most, self.unit), told(self.found, self.unit), self.verdict


def told(value: float, unit: str = "") -> str:
    """A figure as text, two or three digits of it; `-` for NaN."""
    if math.isnan(value):
        return "-"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}{unit if unit in ('', 'x') else ' ' + unit}"
