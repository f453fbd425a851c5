"""Outlier ejection: replicas that fail much more often than their peers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ratchet.config import EjectionConfig


@dataclass(slots=True)
class Tally:
    """Counts of successful and failed requests, in which older ones weigh less."""

    good: float = 0.0
    bad: float = 0.0

    @property
    def total(self) -> float:
        return self.good + self.bad

    def fade(self) -> None:
        self.good /= 2
        self.bad /= 2


def share(tallies: Iterable[Tally]) -> float:
    """Return the share of requests that failed; 0 if there were none."""
    good = bad = 0.0
    for tally in tallies:
        good += tally.good
        bad += tally.bad
    return bad / (good + bad) if good + bad else 0.0


def outliers(tallies: Mapping[str, Tally], config: EjectionConfig, room: int) -> list[str]:
    """Return at most `room` replicas whose failure share exceeds that of all others by `config.share`, the worst first."""
    found = []
    for name, tally in tallies.items():
        rest = [other for key, other in tallies.items() if key != name]
        if rest and tally.total >= config.requests:
            excess = share([tally]) - share(rest)
            if excess >= config.share:
                found.append((excess, name))
    return [name for _, name in sorted(found, reverse=True)[: max(0, room)]]


def floor(share_: float, count: int) -> int:
    """Return how many of `count` replicas must stay in use."""
    return math.ceil(share_ * count)
