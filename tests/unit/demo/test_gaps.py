from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.demo.gaps import Gap, Stamp, Window, between, summary, touches


def test_a_gap_is_measured_on_the_monotonic_clock_though_the_wall_clock_jumps() -> None:
    assert between([Stamp(100, 1.0), Stamp(50, 1.5)]) == [Gap(100, 50, 0.5)]


@pytest.mark.parametrize("stamps", [[], [Stamp(1, 1)]])
def test_fewer_than_two_chunks_have_no_gap(stamps: list[Stamp]) -> None:
    assert between(stamps) == []


@pytest.mark.parametrize(
    ("gap", "inside"),
    [(Gap(1, 2, 1), False), (Gap(1, 11, 10), True), (Gap(12, 13, 1), True), (Gap(5, 30, 25), True), (Gap(20, 21, 1), False)],
)
def test_a_gap_belongs_to_a_swap_if_any_part_of_it_does(gap: Gap, inside: bool) -> None:
    assert touches(gap, [Window(10, 20)]) is inside


def test_during_swap_is_the_longest_gap_inside_and_steady_a_percentile_outside() -> None:
    outside = [Gap(i, i + 0.5, 0.01) for i in range(999)] + [Gap(2000, 2001, 1.0)]
    inside = [Gap(5000, 5001, 0.2), Gap(5002, 5003, 0.4)]
    assert summary([*outside, *inside], [Window(4999, 5004)]) == {"steady": pytest.approx(11, abs=1), "during_swap": 400.0}


def test_what_was_not_seen_is_none_and_not_zero() -> None:
    assert summary([], []) == {"steady": None, "during_swap": None}
    assert summary([Gap(1, 2, 1)], []) == {"steady": 1000.0, "during_swap": None}


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=50))
def test_gaps_add_up_to_the_time_from_the_first_chunk_to_the_last(times: list[float]) -> None:
    stamps = [Stamp(t, t) for t in sorted(times)]
    assert sum(gap.seconds for gap in between(stamps)) == pytest.approx(stamps[-1].mono - stamps[0].mono)
