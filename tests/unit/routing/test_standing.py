"""Breaker, ejection, retry budget: state machines that are told the time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.routing.breaker import Breaker
from gateway.routing.budget import Budget
from gateway.routing.ejection import Tally, floor, outliers
from ratchet.config import BreakerConfig, EjectionConfig, RetryConfig

BREAKER = BreakerConfig(failures=3, open_seconds=2, max_open_seconds=5)
EJECTION = EjectionConfig(share=0.3, requests=10)


def opened(at: float = 0.0) -> Breaker:
    made = Breaker(BREAKER)
    for _ in range(3):
        made.failed(at)
    return made


def test_failures_in_a_row_open_it_and_a_success_between_them_starts_anew() -> None:
    made = Breaker(BREAKER)
    for _ in range(5):
        made.failed(0)
        made.failed(0)
        made.succeeded()
    assert made.state(0) == "closed"
    assert opened().state(0) == "open"
    assert not opened().admits(1.9)


def test_half_open_lets_one_trial_through_whose_first_byte_closes_it() -> None:
    made = opened()
    assert made.state(2) == "half_open"
    assert [made.admits(2), made.enter(2), made.admits(2), made.enter(2)] == [True, True, False, False]
    made.began()
    assert made.state(2) == "closed"
    made.failed(2)  # the trial broke off in the middle
    assert made.state(2) == "open"


def test_a_trial_that_fails_opens_it_for_twice_as_long_up_to_the_longest() -> None:
    made, now, spans = opened(), 0.0, []
    for _ in range(4):
        end = next(t / 10 for t in range(round(now * 10), 1000) if made.admits(t / 10))
        spans.append(end - now)
        now = end
        assert made.enter(now)
        made.failed(now)
    assert spans == [2, 4, 5, 5]
    made.succeeded()
    assert made.state(now) == "closed"


def test_a_trial_without_a_verdict_leaves_room_for_another() -> None:
    made = opened()
    assert made.enter(2)
    made.release()
    assert made.admits(2)


def test_failures_of_requests_sent_before_it_opened_do_not_prolong_it() -> None:
    made = opened()
    for _ in range(100):
        made.failed(1)
    assert made.state(2) == "half_open"


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(["enter", "failed", "began", "succeeded", "release", "wait"]), max_size=80))
def test_whatever_happens_an_open_breaker_is_half_open_within_its_longest_time(steps: list[str]) -> None:
    made, now = Breaker(BREAKER), 0.0
    for step in steps:
        if step == "wait":
            now += 0.7
        elif step in ("enter", "failed"):
            getattr(made, step)(now)
        else:
            getattr(made, step)()
    assert made.state(now + BREAKER.max_open_seconds) in ("closed", "half_open")


def tallies(**found: tuple[int, int]) -> dict[str, Tally]:
    return {name: Tally(good, bad) for name, (good, bad) in found.items()}


def test_only_one_that_stands_out_is_an_outlier() -> None:
    assert outliers(tallies(a=(50, 50), b=(99, 1), c=(100, 0)), EJECTION, 2) == ["a"]
    assert outliers(tallies(a=(50, 50), b=(50, 50), c=(50, 50)), EJECTION, 2) == []
    assert outliers(tallies(a=(4, 5), b=(99, 1)), EJECTION, 2) == []  # too few to tell
    assert outliers(tallies(a=(0, 100)), EJECTION, 2) == []  # no peer to compare with


def test_the_worst_go_first_and_never_more_than_there_is_room_for() -> None:
    found = tallies(a=(60, 40), b=(0, 100), c=(200, 0), d=(400, 0))
    assert outliers(found, EJECTION, 1) == ["b"]
    assert outliers(found, EJECTION, 0) == outliers(found, EJECTION, -1) == []


@settings(deadline=None, max_examples=50)
@given(
    st.dictionaries(st.text(min_size=1, max_size=3), st.tuples(st.integers(0, 200), st.integers(0, 200)), max_size=8),
    st.floats(0, 1),
)
def test_the_floor_holds_whatever_fails(found: dict[str, tuple[int, int]], share: float) -> None:
    keep = floor(share, len(found))
    assert len(found) - len(outliers(tallies(**found), EJECTION, len(found) - keep)) >= keep


@pytest.mark.parametrize(("share", "count", "kept"), [(0.5, 1, 1), (0.5, 2, 1), (0.5, 3, 2), (0, 3, 0), (1, 3, 3)])
def test_the_floor_rounds_up(share: float, count: int, kept: int) -> None:
    assert floor(share, count) == kept


def test_a_storm_gets_its_share_and_the_minimum_and_no_more() -> None:
    now = 0.0
    budget = Budget(RetryConfig(share=0.2, minimum=5), lambda: now)
    granted = 0
    for _ in range(1000):
        with budget.request() as ticket:
            granted += ticket.take()
    assert 0.2 * 1000 <= granted <= 0.2 * 1000 + 5
    now = 1000.0
    with budget.request() as ticket:
        assert [ticket.take() for _ in range(7)] == [True] * 5 + [False] * 2


def test_requests_that_still_wait_count_however_long_they_have() -> None:
    now = 0.0
    budget = Budget(RetryConfig(share=0.5, minimum=0), lambda: now)
    waiting = [budget.request() for _ in range(10)]
    tickets = [one.__enter__() for one in waiting]
    now = 10_000.0
    assert [ticket.take() for ticket in tickets] == [True] * 5 + [False] * 5


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=200),
    st.floats(0, 1),
    st.integers(0, 10),
)
def test_retries_never_exceed_the_share_of_requests_and_the_minimum(steps: list[tuple[float, bool]], share: float, minimum: int) -> None:
    now = 0.0
    budget = Budget(RetryConfig(share=share, minimum=minimum), lambda: now)
    for wait, fails in steps:
        now += wait
        with budget.request() as ticket:
            if fails and ticket.take():
                assert budget.retries + 1 <= share * (budget.requests + 1) + minimum + 1e-9
