"""Time limits: timers for each exchange, answer and connection in place of one look at all of them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Any

from bench.without.optimisation import optimisation, override, replace
from gateway.relay.clocks import Clock, Clocks
from gateway.relay.exchange import Exchange
from gateway.relay.transport import Response, TransportError
from gateway.relay.upstream import Upstream
from gateway.server.protocol import LimitedProtocol
from ratchet.clock import monotonic
from ratchet.config import GatewayConfig

STEPS = ("begin_reading", "begin_sending", "resume_reading", "begin_recording", "begin_settling", "begin_finishing", "end")
"""Methods of an exchange that change its state."""


class Timers(Clocks):
    """The same time limits, by timers: those of a state start with it, and a chunk starts anew those that count from the last one."""

    def __init__(self, config: GatewayConfig, running: Mapping[str, Exchange]) -> None:
        super().__init__(config, running)
        self._timers: dict[str, dict[Clock, asyncio.TimerHandle]] = {}
        for name in STEPS:
            override(Exchange, name, self._after(getattr(Exchange, name), self._state_changed))
        override(Exchange, "received", self._after(Exchange.received, self._chunk_came))

    async def run(self) -> None:
        await asyncio.Event().wait()

    @staticmethod
    def _after(step: Callable[..., None], then: Callable[[Exchange], None]) -> Callable[..., None]:
        def both(exchange: Exchange, *arguments: Any, **named: Any) -> None:
            step(exchange, *arguments, **named)
            then(exchange)

        return both

    def _state_changed(self, exchange: Exchange) -> None:
        for timer in self._timers.pop(exchange.request.id, {}).values():
            timer.cancel()
        if clocks := self.of[exchange.state]:
            timers = self._timers[exchange.request.id] = {}
            for clock in clocks:
                self._start(exchange, clock, timers)

    def _chunk_came(self, exchange: Exchange) -> None:
        timers = self._timers[exchange.request.id]
        for clock in self.of[exchange.state]:
            if clock.since(exchange) > exchange.request.started:
                if clock in timers:
                    timers.pop(clock).cancel()
                self._start(exchange, clock, timers)

    def _start(self, exchange: Exchange, clock: Clock, timers: dict[Clock, asyncio.TimerHandle]) -> None:
        since = clock.since(exchange)
        if math.isinf(since):
            return  # starts with the first chunk
        left = since + clock.seconds - monotonic()
        timers[clock] = asyncio.get_running_loop().call_later(max(0.0, left), self._ring, exchange, clock, timers)

    def _ring(self, exchange: Exchange, clock: Clock, timers: dict[Clock, asyncio.TimerHandle]) -> None:
        if monotonic() - clock.since(exchange) > clock.seconds:
            clock.expire(exchange)
        if clock in timers:
            self._start(exchange, clock, timers)  # for what happened meanwhile without a step, as a part of a whole answer


@optimisation(
    "one look every half second at the time limits of all exchanges", instead="timers for each exchange, some started anew by each chunk"
)
def exchange_clocks() -> None:
    replace(Clocks, Timers)


@optimisation("one look at all answers that have not begun", instead="a timer for each")
def first_byte_clock() -> None:
    init = Upstream.__init__

    class Awaited(dict[Response, float]):
        """The answers that have not begun, each with a timer."""

        def __init__(self) -> None:
            self._timers: dict[Response, asyncio.TimerHandle] = {}

        def __setitem__(self, response: Response, due: float) -> None:
            fault = TransportError("it gave no first byte in time")
            self._timers[response] = asyncio.get_running_loop().call_later(due - monotonic(), response.fail, fault)

        def pop(self, response: Response, *default: Any) -> Any:
            if response in self._timers:
                self._timers.pop(response).cancel()

    def timed(self: Upstream, *parts: Any) -> None:
        init(self, *parts)
        override(self, "_awaited", Awaited())

    override(Upstream, "__init__", timed)


@optimisation("one timer for each connection looks at its state", instead="a timer for each header and for each pause between requests")
def connection_timer() -> None:
    begin, headers, complete = (
        LimitedProtocol.on_message_begin,
        LimitedProtocol.on_headers_complete,
        LimitedProtocol.on_response_complete,
    )

    def on_message_begin(self: LimitedProtocol) -> None:
        begin(self)
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.limit.header_seconds, self._check_time)

    def on_headers_complete(self: LimitedProtocol) -> None:
        self._unset_keepalive_if_required()
        headers(self)

    def on_response_complete(self: LimitedProtocol) -> None:
        complete(self)
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.limit.keep_alive_seconds, self._check_time)

    override(LimitedProtocol, "on_message_begin", on_message_begin)
    override(LimitedProtocol, "on_headers_complete", on_headers_complete)
    override(LimitedProtocol, "on_response_complete", on_response_complete)
