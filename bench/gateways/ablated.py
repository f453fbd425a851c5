"""The samples of `bench/ablation.py`, kept as JSON, and the page that is written from them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from bench import section
from bench.gateways.figures import Estimate, Samples, estimate, formatted, spread
from bench.gateways.measure import CHUNK, LONG, PACED, PACED_LONG, SHORT, STEP_US, Case
from bench.gateways.mock import ROOT
from bench.without.optimisation import Optimisation
from bench.without.run import CONTROL

DATA = ROOT / "bench" / "data" / "ablation.json"
STREAMS = 64
"""More than elsewhere: CPU time is counted in steps of 10 ms, which are to be a small part of it."""
WHOLE_ANSWER = Case("whole c32", SHORT, False, 0, 32)
CASES = (WHOLE_ANSWER, PACED._replace(connections=STREAMS), PACED_LONG._replace(connections=STREAMS))
COLUMNS = {WHOLE_ANSWER.figure: "whole answer", PACED.figure: "stream of 8", CHUNK: "chunk", f"{WHOLE_ANSWER.figure} store": "store"}
"""Titles of the figures in the table."""
OWN = (WHOLE_ANSWER.figure, PACED.figure, CHUNK)
"""Figures of the gateway itself: a saving in one of them, or in the store's, is a saving."""


class Run(msgspec.Struct):
    """The samples of the whole gateway and of one without something, from the same rounds, by figure."""

    date: str
    rounds: int
    seconds: float
    whole: dict[str, list[float]]
    without: dict[str, list[float]]

    @classmethod
    def of(cls, samples: Samples, whole: str, without: str, rounds: int, seconds: float) -> Run:
        """What `samples` has of the two."""
        date = time.strftime("%Y-%m-%d", time.gmtime())
        return cls(date, rounds, seconds, *({f: samples.of_figure(name, f) for f in COLUMNS} for name in (whole, without)))

    def savings(self, figure: str) -> list[float]:
        """CPU us that the gateway without it costs more, round by round."""
        return [b - a for a, b in zip(self.whole[figure], self.without[figure], strict=True)]


def add(path: Path, runs: Mapping[str, Run]) -> dict[str, Run]:
    """Put `runs` into the file, in place of earlier ones of the same names; all runs that it then has."""
    known = {**stored(path), **runs}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(known), indent=1) + b"\n")
    return known


def stored(path: Path) -> dict[str, Run]:
    """The runs in the file; none if there is no file."""
    runs: dict[str, Run] = msgspec.json.decode(path.read_bytes(), type=dict[str, Run]) if path.exists() else {}
    return runs


def text(runs: Mapping[str, Run], optimisations: Mapping[str, Optimisation]) -> str:
    """The section of the page."""
    measured = {name: found for name, found in optimisations.items() if name in runs}
    rows = [_row(f"`{name}`: {found.does}", found.instead, [runs[name]]) for name, found in measured.items()]
    controls = [run for name, run in runs.items() if name.startswith(CONTROL)]
    if controls:
        rows.append(_row("`control`: noise", "nothing is changed", controls))
    return "\n\n".join(
        [_how(list(runs.values())), section.table(("optimisation", "without it", *COLUMNS.values(), "saves"), rows), _found(measured, runs)]
    )


def _row(does: str, instead: str, runs: Sequence[Run]) -> list[str]:
    found = {figure: _saving(runs, figure) for figure in COLUMNS}
    return [does, instead, *(spread(saving) for saving in found.values()), ", ".join(_shown(found)) or "-"]


def _saving(runs: Sequence[Run], figure: str) -> Estimate:
    return estimate([saving for run in runs for saving in run.savings(figure)])


def _shown(found: Mapping[str, Estimate]) -> list[str]:
    """The figures in which the whole interval is a saving."""
    return [COLUMNS[figure] for figure, saving in found.items() if saving.low > 0]


def without_saving(names: Sequence[str], runs: Mapping[str, Run]) -> list[str]:
    """Those of `names` that show no saving in any figure."""
    return [name for name in names if not _shown({figure: _saving([runs[name]], figure) for figure in COLUMNS})]


def _found(measured: Mapping[str, Optimisation], runs: Mapping[str, Run]) -> str:
    idle = without_saving(list(measured), runs)
    if not idle:
        return "Each of them shows a saving."
    return f"No saving shown: {', '.join(f'`{name}`' for name in idle)}."


def _how(runs: Sequence[Run]) -> str:
    costs = ", ".join(f"{formatted(_cost(runs, figure))} for a {COLUMNS[figure]}" for figure in OWN)
    rounds = sorted({run.rounds for run in runs})
    return (
        "CPU us that the gateway costs more without one of its optimisations, with the plain code of `bench/without` in its place: the "
        "median and, in brackets, its 95 % interval over interleaved rounds, each beside the whole gateway of the same round "
        f"({' or '.join(map(str, rounds))} rounds of {runs[0].seconds:g} s a measurement, on one core, recording every answer). "
        f"The whole gateway costs {costs}, and its store {formatted(_cost(runs, WHOLE_ANSWER.figure + ' store'))}. Whole answers: 32 "
        f"connections. Streams: {STREAMS} at a time, {STEP_US // 1000} ms between two chunks; a chunk is what streams of {LONG} cost more "
        f"than streams of {SHORT}. The last column names the figures whose interval lies above zero. The control is noise alone."
    )


def _cost(runs: Sequence[Run], figure: str) -> float:
    return estimate([value for run in runs for value in run.whole[figure]]).median
