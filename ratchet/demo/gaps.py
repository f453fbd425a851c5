"""How smooth the streams were: gaps between chunks, in and outside of swaps. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

STEADY_PERCENTILE = 99.9


class Stamp(NamedTuple):
    """When a chunk arrived: `wall` to compare with the learner's stamps, `mono` to measure durations (seconds)."""

    wall: float
    mono: float


class Gap(NamedTuple):
    """The silence between two chunks of one answer: wall time of both ends, seconds between them."""

    start: float
    end: float
    seconds: float


class Window(NamedTuple):
    """A swap, from the moment the candidate's load began to the pointer's flip (wall seconds)."""

    start: float
    end: float


def between(stamps: Sequence[Stamp]) -> list[Gap]:
    """The gaps of one answer's chunks, in order of arrival; none for fewer than two chunks."""
    return [Gap(a.wall, b.wall, b.mono - a.mono) for a, b in pairwise(stamps)]


def summary(gaps: Iterable[Gap], windows: Sequence[Window]) -> dict[str, float | None]:
    """`max_gap_ms` of the contract: `steady`, the 99.9th percentile of gaps that touch no swap, and `during_swap`, the
    longest that touches one (milliseconds; None where no gap is of that kind)."""
    inside: list[float] = []
    outside: list[float] = []
    for gap in gaps:
        (inside if touches(gap, windows) else outside).append(gap.seconds * 1000)
    return {
        "steady": round(float(np.percentile(outside, STEADY_PERCENTILE)), 1) if outside else None,
        "during_swap": round(max(inside), 1) if inside else None,
    }


def touches(gap: Gap, windows: Sequence[Window]) -> bool:
    """Whether any part of `gap` lies in one of `windows`."""
    return any(gap.start < w.end and gap.end > w.start for w in windows)
