"""Children that are started again, and the pauses between attempts."""

from __future__ import annotations

import pytest

from ratchet.backoff import Backoff
from ratchet.process import supervision
from ratchet.process.supervision import EARLY_DEATHS, WRONG_CONFIGURATION, keep_running


def test_pauses_double_up_to_the_longest_and_begin_again_after_a_success() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.pause() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert backoff.failures == 5
    backoff.reset()
    assert (backoff.failures, backoff.pause()) == (0, 0.5)


def test_a_first_pause_above_the_longest_stays_the_first() -> None:
    backoff = Backoff(2.0, 1.0)
    assert [backoff.pause(), backoff.pause()] == [2.0, 1.0]


class Child:
    """Ends with each of `statuses` in turn; counts its lives."""

    def __init__(self, *statuses: int, ready_at: int | None = None) -> None:
        self.statuses = statuses
        self.lives = 0
        self.ended: list[int] = []
        self.ready_at = ready_at

    async def keep(self) -> int:
        return await keep_running(self._life, was_ready=self._was_ready, is_final=lambda s: s == WRONG_CONFIGURATION, ended=self._ended)

    async def _life(self) -> int:
        self.lives += 1
        return self.statuses[self.lives - 1]

    def _was_ready(self) -> bool:
        return self.ready_at is not None and self.lives >= self.ready_at

    async def _ended(self, status: int) -> None:
        self.ended.append(status)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "FIRST_PAUSE", 0.0)


async def test_a_child_that_is_never_ready_is_given_up_with_its_last_status() -> None:
    child = Child(*range(10, 10 + EARLY_DEATHS))
    assert await child.keep() == 10 + EARLY_DEATHS - 1
    assert child.ended == list(range(10, 10 + EARLY_DEATHS - 1))


async def test_a_child_that_was_ready_once_is_started_again_until_a_final_status() -> None:
    child = Child(*[1] * 20, WRONG_CONFIGURATION, ready_at=EARLY_DEATHS - 1)
    assert await child.keep() == WRONG_CONFIGURATION
    assert (child.lives, child.ended) == (21, [1] * 20)


async def test_a_final_status_ends_it_at_once() -> None:
    child = Child(WRONG_CONFIGURATION)
    assert await child.keep() == WRONG_CONFIGURATION
    assert child.ended == []


async def test_the_pause_is_the_first_again_after_a_steady_life(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    clock = [0.0]

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    class Aging(Child):
        async def _life(self) -> int:
            clock[0] += supervision.STEADY_SECONDS + 1 if self.lives == 3 else 1
            return await super()._life()

    monkeypatch.setattr(supervision, "FIRST_PAUSE", 1.0)
    monkeypatch.setattr(supervision, "monotonic", lambda: clock[0])
    monkeypatch.setattr(supervision.asyncio, "sleep", sleep)
    await Aging(1, 1, 1, 1, 1, WRONG_CONFIGURATION, ready_at=1).keep()
    assert pauses == [1.0, 2.0, 4.0, 1.0, 2.0]
