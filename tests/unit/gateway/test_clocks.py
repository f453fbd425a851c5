"""Which time limits run in which state of an exchange, and what happens when one runs out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gateway.relay import clocks, exchange
from gateway.relay.clocks import KEEPALIVE_SECONDS, Clocks
from gateway.relay.exchange import Exchange, State
from gateway.relay.transport import TransportError
from ratchet.config import GatewayConfig
from tests.support.exchanges import exchange_reading, inference_request, new_exchange

IDLE, TOTAL = 100.0, 1000.0
CONFIG = GatewayConfig(idle_seconds=IDLE, total_seconds=TOTAL)


class Time:
    now = 5000.0


class Task:
    """A task that only remembers that it was cancelled."""

    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Iterator[Time]:
    time = Time()
    for module in (clocks, exchange):
        monkeypatch.setattr(module, "monotonic", lambda: time.now)
    yield time


class Site:
    """One exchange and the clocks that watch it."""

    def __init__(self, time: Time, made: Callable[[Any, Any], Exchange] = exchange_reading, *, advanced: str = "") -> None:
        self.time = time
        self.comments: list[bytes] = []

        async def send(message: Any) -> None:
            self.comments.append(message["body"])

        self.task = Task()
        self.exchange = made(inference_request(started=time.now, parsed=time.now, send=send), self.task)
        for step in advanced.split():
            getattr(self.exchange, step)()
        self.clocks = Clocks(CONFIG, {self.exchange.request.id: self.exchange})

    def after(self, seconds: float) -> None:
        """Look at the clocks once `seconds` have passed."""
        self.time.now += seconds
        self.clocks.look()

    async def error(self) -> str:
        """What the reader of the answer gets; "": the answer goes on."""
        assert self.exchange.answer is not None
        try:
            async with asyncio.timeout(0):
                await self.exchange.answer.read()
        except TransportError as error:
            return str(error)
        except TimeoutError:
            return ""
        return "the end"


def test_every_state_says_which_clocks_run() -> None:
    assert Clocks(CONFIG, {}).of.keys() == set(State)


@pytest.mark.parametrize("advanced", ["", "begin_dispatching"])
def test_before_an_answer_begins_no_clock_runs_here(time: Time, advanced: str) -> None:
    site = Site(time, new_exchange)
    if advanced:
        site.exchange.begin_dispatching(site.exchange.ask)
    site.after(10 * TOTAL)
    assert not site.task.cancelled


@pytest.mark.parametrize("advanced", ["begin_recording", "begin_recording begin_settling"])
async def test_while_others_are_waited_for_that_have_limits_of_their_own_no_clock_runs(time: Time, advanced: str) -> None:
    site = Site(time, advanced=advanced)
    site.after(10 * TOTAL)
    assert not site.task.cancelled
    assert await site.error() == ""


async def test_an_engine_that_falls_silent_is_given_up(time: Time) -> None:
    site = Site(time)
    site.after(IDLE)
    assert await site.error() == ""
    site.exchange.received(visible=False)
    site.after(IDLE)
    assert await site.error() == ""
    site.after(0.1)
    assert await site.error() == "it fell silent"
    assert not site.task.cancelled


async def test_an_answer_that_is_read_whole_is_not_silent_while_bytes_arrive(time: Time) -> None:
    site = Site(time)
    assert site.exchange.answer is not None
    site.after(IDLE - 1)
    site.exchange.answer.received_at = time.now
    site.after(IDLE)
    assert await site.error() == ""
    site.after(0.1)
    assert await site.error() == "it fell silent"


async def test_an_answer_past_its_whole_time_is_given_up_and_that_is_no_failure_of_its_replica(time: Time) -> None:
    site = Site(time)
    for _ in range(10):
        site.after(IDLE)
        site.exchange.received(visible=False)
    assert await site.error() == ""
    site.after(0.1)
    assert "total_seconds" in await site.error()
    answer = site.exchange.answer
    assert answer is not None
    answer.replica.healthy = True
    answer.broke()
    assert answer.replica.healthy
    assert answer.replica.failures == 0


async def test_a_stream_that_says_nothing_for_long_is_kept_alive_by_comments(time: Time) -> None:
    site = Site(time)
    site.exchange.received(visible=True)
    for count in range(3):
        site.after(KEEPALIVE_SECONDS)
        await asyncio.sleep(0)
        assert len(site.comments) == count
        site.after(0.1)
        await asyncio.sleep(0)
        assert site.comments == [b": keep-alive\n\n"] * (count + 1)


async def test_an_answer_whose_client_was_sent_nothing_of_it_gets_no_comment(time: Time) -> None:
    site = Site(time)
    site.after(IDLE)
    await asyncio.sleep(0)
    assert site.comments == []


async def test_a_comment_that_comes_too_late_is_no_error(time: Time) -> None:
    async def send(message: Any) -> None:
        raise RuntimeError("the answer is complete")

    exchange = exchange_reading(inference_request(started=time.now, send=send))
    exchange.received(visible=True)
    made = Clocks(CONFIG, {"one": exchange})
    time.now += KEEPALIVE_SECONDS + 1
    made.look()
    while made._comments:
        await asyncio.sleep(0)


@pytest.mark.parametrize("advanced", ["begin_sending", "begin_settling begin_finishing"])
async def test_a_client_that_takes_nothing_is_given_up_as_one_that_left(time: Time, advanced: str) -> None:
    site = Site(time, advanced=advanced)
    site.after(IDLE)
    assert not site.task.cancelled
    site.after(0.1)
    assert site.task.cancelled
    assert site.exchange.interrupted == "cancelled"
    assert await site.error() == ""


@pytest.mark.parametrize(("advanced", "late"), [("begin_sending", True), ("begin_settling begin_finishing", False)])
async def test_only_the_last_bytes_may_take_longer_than_the_whole_time(time: Time, advanced: str, late: bool) -> None:
    site = Site(time)
    time.now += TOTAL
    for step in advanced.split():
        getattr(site.exchange, step)()
    site.after(0)
    assert not site.task.cancelled
    site.after(0.1)
    assert site.task.cancelled is late


async def test_an_exchange_that_says_that_the_gateway_shuts_down_is_not_interrupted_again(time: Time) -> None:
    site = Site(time)
    site.exchange.interrupt("truncated")
    site.exchange.begin_finishing()
    site.after(10 * TOTAL)
    assert site.exchange.interrupted == "truncated"
