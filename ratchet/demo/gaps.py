"""How smooth the streams were: the gaps between chunks, during swaps and at other times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

STEADY_PERCENTILE = 99.9


class Stamp(NamedTuple):
    """When a chunk arrived, in seconds: `wall` compares with the learner's times, `mono` measures durations."""

    wall: float
    mono: float


class Gap(NamedTuple):
    """The time between two chunks of one answer: wall time of both ends, and the seconds between them."""

    start: float
    end: float
    seconds: float


class Window(NamedTuple):
    """A swap in wall time: from the start of the candidate's load to the flip of the live pointer."""

    start: float
    end: float


def between(stamps: Sequence[Stamp]) -> list[Gap]:
    """Return the gaps between one answer's chunks in order of arrival."""
    return [Gap(a.wall, b.wall, b.mono - a.mono) for a, b in pairwise(stamps)]


def summary(gaps: Iterable[Gap], windows: Sequence[Window]) -> dict[str, float | None]:
    """Return `max_gap_ms` of the contract, in milliseconds: the 99.9th percentile of the gaps outside swaps (`steady`) and the
    longest gap that overlaps one (`during_swap`). None where there is no such gap."""
    inside: list[float] = []
    outside: list[float] = []
    for gap in gaps:
        (inside if touches(gap, windows) else outside).append(gap.seconds * 1000)
    return {
        "steady": round(float(np.percentile(outside, STEADY_PERCENTILE)), 1) if outside else None,
        "during_swap": round(max(inside), 1) if inside else None,
    }


def touches(gap: Gap, windows: Sequence[Window]) -> bool:
    """Return whether any part of `gap` lies in one of `windows`."""
    return any(gap.start < window.end and gap.end > window.start for window in windows)
