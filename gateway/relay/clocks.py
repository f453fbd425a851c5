"""The time limits of exchanges under way: which clocks run in which state, and what happens when one runs out."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from gateway.relay.exchange import Exchange, State
from gateway.server.http import body_message
from ratchet.clock import monotonic
from ratchet.config import GatewayConfig

LOOK_SECONDS = 0.5
"""Seconds between two looks at the clocks; a limit may be passed by as much."""
KEEPALIVE_SECONDS = 15.0
"""Silence of a stream after which its client is sent a comment."""


class Clock(NamedTuple):
    """`expire` is called once more than `seconds` have passed since the moment that `since` tells."""

    seconds: float
    since: Callable[[Exchange], float]
    expire: Callable[[Exchange], None]


class Clocks:
    """Watches the exchanges in `running`. One look at all of them costs less than timers for each."""

    def __init__(self, config: GatewayConfig, running: Mapping[str, Exchange]) -> None:
        idle, total = config.idle_seconds, config.total_seconds
        client_idle = Clock(idle, _progress, Exchange.disconnected)
        self.of: dict[State, tuple[Clock, ...]] = {
            State.RECEIVED: (),  # gateway.quota.wait_ms, in Quota
            State.DISPATCHING: (),  # gateway.connect_seconds, first_byte_seconds and total_seconds, in Upstream
            State.READING: (
                Clock(idle, _engine_progress, _engine_is_silent),
                Clock(total, _started, _out_of_time),
                Clock(KEEPALIVE_SECONDS, _last_sent, self._comment),
            ),
            State.SENDING: (client_idle, Clock(total, _started, Exchange.disconnected)),
            State.RECORDING: (),  # gateway.record_seconds, in Recorder
            State.SETTLING: (),  # gateway.quota.wait_ms, in Quota
            State.FINISHING: (client_idle,),
            State.ENDED: (),
        }
        """The clocks that run in each state; the first that ran out counts. Where none runs, what is waited for has a limit of its own."""
        self._running = running
        self._comments: set[asyncio.Future[None]] = set()

    async def run(self) -> None:
        """Look at the clocks for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        """Act on every clock that has run out."""
        now = monotonic()
        for exchange in list(self._running.values()):
            for clock in self.of[exchange.state]:
                if now - clock.since(exchange) > clock.seconds:
                    clock.expire(exchange)
                    break

    def _comment(self, exchange: Exchange) -> None:
        """Send a comment line (WHATWG HTML, 9.2.7), so that no proxy on the way closes the connection for its silence."""
        exchange.kept_alive()
        task = asyncio.ensure_future(exchange.request.send(body_message(b": keep-alive\n\n")))
        self._comments.add(task)
        task.add_done_callback(self._commented)

    def _commented(self, task: asyncio.Future[None]) -> None:
        """The answer may have ended before the comment's turn came. It was not sent then, and the error is of no interest."""
        self._comments.discard(task)
        if not task.cancelled():
            task.exception()


def _progress(exchange: Exchange) -> float:
    return exchange.progress_at


def _engine_progress(exchange: Exchange) -> float:
    return exchange.engine_progress_at


def _started(exchange: Exchange) -> float:
    return exchange.request.started


def _last_sent(exchange: Exchange) -> float:
    """When a stream's client was last sent something or its engine last sent something; never, where nothing is streamed yet."""
    return max(exchange.streamed_at, exchange.progress_at) if exchange.streamed_at else math.inf


def _engine_is_silent(exchange: Exchange) -> None:
    if exchange.answer is not None:
        exchange.answer.give_up("it fell silent")


def _out_of_time(exchange: Exchange) -> None:
    if exchange.answer is not None:
        exchange.answer.give_up("it took longer than gateway.total_seconds", timed_out=True)
