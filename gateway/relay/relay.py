"""The hot path: an inference request from the client to a replica and back, recorded on the way; its route's dialect knows the form.

Plain ASGI. An answer's bytes go out first; its last event, or a whole answer, waits until the interaction is durable.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Mapping

from starlette.types import Message, Receive, Scope, Send

from gateway.access.quota import Quota
from gateway.catalog import Catalog
from gateway.dialects import Dialect
from gateway.dialects.base import episode
from gateway.errors import ApiError, unavailable
from gateway.record.recorder import NOT_KEPT, Recorder, Room, room_for
from gateway.relay.dispatch import Dispatcher
from gateway.relay.exchange import Exchange
from gateway.relay.stream import Flow
from gateway.relay.transport import TransportError
from gateway.relay.upstream import Answer
from gateway.server import strict
from gateway.server.http import JSON, ClientGone, Header, header, part, read_body, respond
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.observe import Observation
from ratchet import names
from ratchet.clock import monotonic
from ratchet.config import GatewayConfig
from ratchet.errors import EngineBroken, StoreUnavailable
from ratchet.types import Status

STREAM: list[Header] = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
UNRECORDED: Header = (b"x-ratchet-recorded", b"false")
NOT_RECORDED = unavailable("The answer could not be recorded.", "not_recorded")
TEND_EVERY = 0.5
"""Seconds between two looks; a bound in seconds may be passed by as much."""
KEEPALIVE_SECONDS = 15.0
"""Silence of a stream after which the client is sent a comment."""
TRACE = (b"traceparent", b"tracestate")

log = logging.getLogger(__name__)


class Relay:
    """One instance serves all inference requests; `running` holds those under way, by the id they were given."""

    def __init__(
        self,
        config: GatewayConfig,
        catalog: Catalog,
        dialects: Mapping[str, Dialect],
        dispatcher: Dispatcher,
        recorder: Recorder,
        metrics: Metrics,
        quota: Quota,
    ) -> None:
        self.running: dict[str, Exchange] = {}
        self.draining = False
        self._entered = 0
        self._comments: set[asyncio.Future[None]] = set()
        self._config = config
        self._catalog = catalog
        self._dialects = dialects
        self._dispatcher = dispatcher
        self._recorder = recorder
        self._metrics = metrics
        self._quota = quota

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._open()
        if self._entered >= self._config.limits.max_inflight:
            raise ApiError(429, "Too many requests are in flight.", code="too_many_requests", retry_after=1)
        self._entered += 1  # a body that is being read takes memory too
        try:
            await self._enter(scope, receive, send)
        finally:
            self._entered -= 1

    def _open(self) -> None:
        if self.draining:
            raise unavailable("The gateway is shutting down.", "draining")

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = monotonic()
        body = await read_body(scope, receive, self._config.limits.max_body_bytes)
        self._open()
        exchange = self._exchange(scope, body, started)
        del body  # its tree is kept; both would be twice as much
        exchange.room = await self._admit(exchange)
        exchange.task = asyncio.current_task()
        self.running[exchange.id] = exchange
        self._metrics.inflight.inc()
        client = exchange.client
        client.gone = exchange.left
        try:
            if client.over:
                raise ClientGone
            await self._guarded(exchange, send)
        finally:
            exchange.over = True
            client.gone = None
            self._metrics.inflight.dec()
            self._recorder.leave(exchange.room)
            del self.running[exchange.id]
            await exchange.admission.settle(exchange.used)

    async def _admit(self, exchange: Exchange) -> Room:
        if not exchange.kept:
            return NOT_KEPT
        return await self._recorder.admit(room_for(exchange.size, exchange.ask.expected, exchange.ask.sampling.max_tokens))

    def _exchange(self, scope: Scope, body: bytes, started: float) -> Exchange:
        dialect = self._dialects[scope["path"]]
        ask = dialect.check(strict.parse(body, self._config.limits.max_depth), self._config)
        parsed = monotonic()
        target = self._catalog.resolve(ask.model)
        seen: Observation = scope["state"]["seen"]
        seen.resolved(target, stream=ask.stream)
        trace = {key.decode(): value for key in TRACE if (value := header(scope, key)) is not None and value.isascii()}
        return Exchange(
            id=names.mint(dialect.prefix),
            caller=scope["state"]["caller"],
            target=target,
            dialect=dialect,
            ask=ask,
            trace=trace,
            episode=episode(ask, header(scope, b"x-ratchet-episode-id")),
            seen=seen,
            reply=scope["state"]["headers"],
            client=scope["connection"],
            send=scope["state"]["send"],
            reserve=self._quota.estimate(len(body), ask.sampling.max_tokens, ask.expected),
            started=started,
            parsed=parsed,
            size=len(body),
            session=header(scope, b"x-session-id") or "",
            cpu=time.thread_time(),
            during_swap=target.policy in self._catalog.swapping,
        )

    async def _guarded(self, exchange: Exchange, send: Send) -> None:
        """Answers; an end from outside (the client went, the gateway goes) is recorded as far as it came."""
        try:
            await self._answer(exchange, send)
        except ClientGone:
            self._partial(exchange, "cancelled")
            raise
        except asyncio.CancelledError:
            if exchange.stop is None or exchange.task is None:
                raise
            exchange.task.uncancel()
            self._partial(exchange, exchange.stop)
            if exchange.stop == "cancelled":
                raise ClientGone from None
            fault = unavailable("The gateway is shutting down.", "draining")
            if exchange.first_token is None or not exchange.ask.stream:
                raise fault from None
            await tell(exchange, send(part(_fault(exchange, fault), more=False)))

    async def _answer(self, exchange: Exchange, send: Send) -> None:
        exchange.admission = await self._quota.admit(exchange.caller, exchange.ask.model, exchange.reserve)
        exchange.reply += exchange.admission.headers
        exchange.ask = await exchange.dialect.prepare(exchange.ask, exchange.caller)
        try:
            answer = await self._dispatcher.ask(exchange)
        finally:
            self._dispatched(exchange)
        try:
            exchange.answer = answer
            exchange.heard = exchange.first_token = monotonic()
            exchange.seen.first_byte(exchange.first_token)
            headers = [
                (b"x-ratchet-policy", exchange.target.label.encode()),
                (b"x-ratchet-engine", exchange.engine.encode()),
                *(() if exchange.room.promised else (UNRECORDED,)),
            ]
            if exchange.ask.stream:
                await self._stream(exchange, answer, headers, send)
            else:
                await self._whole(exchange, answer, headers, send)
        finally:
            answer.close()

    def _dispatched(self, exchange: Exchange) -> None:
        if exchange.dispatched is None:
            return
        seconds = exchange.dispatched - exchange.parsed
        if self._metrics.dispatched(seconds, during_swap=exchange.during_swap):
            used = time.thread_time() - exchange.cpu
            log.warning("a request was held %.0f ms; the gateway itself worked %.0f ms since it was parsed", seconds * 1000, used * 1000)

    async def _whole(self, exchange: Exchange, answer: Answer, headers: list[Header], send: Send) -> None:
        try:
            told = await answer.whole()
            body, exchange.captured = exchange.dialect.whole(told, exchange.ask, exchange.id, exchange.target.model)
            _ended(exchange)
            answer.answered()
            exchange.seen.generated(exchange.captured.usage)
        except EngineBroken as error:
            log.warning("%s: %s", answer.replica.name, error)
            answer.broke()
            exchange.seen.broke("engine_broken")
            self._partial(exchange, "truncated")
            raise ApiError(502, "The engine's answer could not be read.", code="engine_broken") from None
        if not await self._record(exchange):
            headers.append(UNRECORDED)
        exchange.over = True
        await exchange.admission.settle(exchange.used)
        await tell(exchange, respond(send, 200, body, [JSON, *headers]))

    async def _stream(self, exchange: Exchange, answer: Answer, headers: list[Header], send: Send) -> None:
        start: Message = {"type": "http.response.start", "status": 200, "headers": [*STREAM, *headers]}
        await tell(exchange, send(start))
        send = exchange.send  # what follows the start needs no more than the server's own
        try:
            last = await self._pump(exchange, answer, send)
            answer.answered()
            exchange.seen.generated(exchange.captured.usage)
            if not await self._record(exchange):
                last = _fault(exchange, NOT_RECORDED)
        except (EngineBroken, TransportError) as error:
            log.warning("%s broke a stream: %s", answer.replica.name, error or type(error).__name__)
            answer.broke()
            exchange.seen.broke("engine_broken")
            self._partial(exchange, "truncated")
            last = _fault(exchange, ApiError(502, "The engine broke off its answer.", code="engine_broken"))
        exchange.over = True
        await exchange.admission.settle(exchange.used)
        await tell(exchange, send(part(last, more=False)))

    async def _pump(self, exchange: Exchange, answer: Answer, send: Send) -> bytes:
        """Relays up to the last event, which it keeps back and returns. EngineBroken, TransportError if that does not come."""
        capture = exchange.dialect.capture(exchange.ask, exchange.id, exchange.target.model)
        flow = Flow(exchange, capture)
        try:
            flow.take(answer.first)
            while not flow.over:
                if flow.behind:
                    await tell(exchange, send(part(b"")))  # ASGI's way to wait for the client
                    flow.behind = False
                await answer.feed(flow.take)
                if not (flow.over or flow.behind):
                    raise EngineBroken("the stream ended before its last event")
        except BaseException:
            with contextlib.suppress(EngineBroken):  # it must not take the place of what ends the answer
                exchange.captured = capture.captured()
            raise
        exchange.captured = capture.captured()
        _ended(exchange)
        return flow.last

    async def _record(self, exchange: Exchange) -> bool:
        """Waits until the answer is durable; False if it is not, though it was to be."""
        if not exchange.kept:
            return True
        exchange.recorded = True
        exchange.seen.recording()
        try:
            await self._recorder.write(exchange.interaction("complete", self._catalog.metric(exchange.target.owner)))
        except StoreUnavailable as error:
            log.error("an answer was promised and could not be recorded: %s", error)
            return False
        exchange.seen.recorded()
        return True

    async def tend(self) -> None:
        """Ends what neither engine nor client moves any more, and keeps long silences alive. For ever."""
        while True:
            await asyncio.sleep(TEND_EVERY)
            now = monotonic()
            for exchange in list(self.running.values()):
                if exchange.stalled:
                    late = not exchange.over and now - exchange.started > self._config.total_seconds
                    if late or now - exchange.heard > self._config.idle_seconds:
                        exchange.left()
                elif exchange.answer is None or exchange.over or exchange.recorded:
                    continue
                elif now - max(exchange.heard, exchange.answer.heard) > self._config.idle_seconds:
                    exchange.answer.give_up("it fell silent")
                elif now - exchange.started > self._config.total_seconds:
                    exchange.answer.give_up("it took longer than gateway.total_seconds", late=True)
                elif exchange.told and now - max(exchange.told, exchange.heard) > KEEPALIVE_SECONDS:
                    self._comment(exchange, now)

    def _comment(self, exchange: Exchange, now: float) -> None:
        """A comment line (WHATWG HTML, 9.2.7), so that no proxy on the way gives the connection up."""
        exchange.told = now
        task = asyncio.ensure_future(exchange.send(part(b": keep-alive\n\n")))
        self._comments.add(task)
        task.add_done_callback(self._commented)

    def _commented(self, task: asyncio.Future[None]) -> None:
        """The answer may have ended before the comment's turn came; then it was not sent."""
        self._comments.discard(task)
        if not task.cancelled():
            task.exception()

    def _partial(self, exchange: Exchange, status: Status) -> None:
        """Records an answer the client did not see whole; nobody waits for it."""
        if exchange.kept and not exchange.recorded and exchange.first_token is not None:
            exchange.recorded = True
            self._recorder.offer(exchange.interaction(status, self._catalog.metric(exchange.target.owner)))


def _fault(exchange: Exchange, error: ApiError) -> bytes:
    """The event that ends a stream whose status is out already."""
    exchange.seen.failed(error.code or str(error.status))
    return exchange.dialect.fault(error)


async def tell(exchange: Exchange, sending: Awaitable[None]) -> None:
    """Waits until the client took what is being sent; `tend` ends it where that takes too long."""
    exchange.heard = monotonic()
    exchange.stalled = True
    await sending
    exchange.stalled = False


def _ended(exchange: Exchange) -> None:
    if not exchange.dialect.recorded:
        return
    if not exchange.captured.finished or len(exchange.captured.choices) != exchange.ask.expected:
        raise EngineBroken("a choice has no end")
