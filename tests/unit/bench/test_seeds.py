from __future__ import annotations

from typing import Any

import pytest

from bench.demo_seeds import HEAD, faults, row
from ratchet.demo.report.outcome import figures
from tests.support import demo_runs


def result(**changes: Any) -> dict[str, Any]:
    """The figures of a run with three swaps."""
    return {**figures(demo_runs.outcome()), "swaps": 3, **changes}


def test_a_run_that_reached_every_figure_has_no_fault() -> None:
    assert faults(result()) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"heldout": {"n": 64, "before": 0.2, "after": 0.5}}, "rose by 0.300"),
        ({"requests": {"total": 9, "failed": 1, "streamed": 9}}, "1 requests failed"),
        ({"swaps": 2}, "2 swaps"),
        ({"held": {"during_swap": 1, "outside": 0}}, "1 requests held"),
        ({"seconds": 700}, "took 700 s"),
        ({"ledger": {"received": 3, "used": 1, "pending": 1, "rejected": {}, "expired": 0}}, "does not balance"),
    ],
)
def test_each_figure_that_was_missed_is_named(change: dict[str, Any], said: str) -> None:
    found = faults(result(**change))
    assert len(found) == 1 and said in found[0]


def test_a_line_has_a_cell_for_each_head_even_without_swaps() -> None:
    assert len(row(0, result())) == len(HEAD)
    assert len(row(0, result(swap_seconds=[], activation=[], kl=None))) == len(HEAD)
