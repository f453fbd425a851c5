"""The hot path: `POST /v1/chat/completions` from the client to a replica and back, recorded on the way.

Plain ASGI. An answer's bytes go out first; `[DONE]`, or a whole answer, waits until the interaction is in the store.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable

import aiohttp
from starlette.types import Message, Receive, Scope, Send

from engines.capture import StreamCapture, capture_whole
from engines.sse import DONE, frame, split
from gateway import chat, strict
from gateway.catalog import Catalog
from gateway.dispatch import Dispatcher
from gateway.errors import ApiError, unavailable
from gateway.exchange import Exchange
from gateway.http import JSON, ClientGone, Header, header, part, read_body, respond
from gateway.metrics import Metrics
from gateway.observe import Observation
from gateway.quota import Quota
from gateway.recorder import NOT_KEPT, Recorder, Room, room_for
from gateway.upstream import Answer
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
LONGEST_EVENT = 2**24
TRACE = (b"traceparent", b"tracestate")

log = logging.getLogger(__name__)


class Relay:
    """One instance serves all chat requests; `running` holds those under way, by the id they were given."""

    def __init__(
        self, config: GatewayConfig, catalog: Catalog, dispatcher: Dispatcher, recorder: Recorder, metrics: Metrics, quota: Quota
    ) -> None:
        self.running: dict[str, Exchange] = {}
        self.draining = False
        self._entered = 0
        self._config = config
        self._catalog = catalog
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
        exchange.room = await self._admit(exchange, len(body))
        exchange.task = asyncio.current_task()
        self.running[exchange.id] = exchange
        self._metrics.inflight.inc()
        watcher = asyncio.create_task(_watch(receive, exchange))
        try:
            await self._guarded(exchange, send)
        finally:
            exchange.over = True
            watcher.cancel()
            self._metrics.inflight.dec()
            self._recorder.leave(exchange.room)
            del self.running[exchange.id]
            await exchange.admission.settle(exchange.used)

    async def _admit(self, exchange: Exchange, body: int) -> Room:
        if not exchange.kept:
            return NOT_KEPT
        request = exchange.request
        return await self._recorder.admit(room_for(body, request.n or 1, request.max_completion_tokens or request.max_tokens))

    def _exchange(self, scope: Scope, body: bytes, started: float) -> Exchange:
        tree = strict.parse(body, self._config.limits.max_depth)
        request = chat.check(tree, self._config.limits.max_n)
        parsed = monotonic()
        target = self._catalog.resolve(request.model)
        seen: Observation = scope["state"]["seen"]
        seen.resolved(target, stream=bool(request.stream))
        trace = {key.decode(): value for key in TRACE if (value := header(scope, key)) is not None and value.isascii()}
        return Exchange(
            id=names.mint(names.CHAT_PREFIX),
            caller=scope["state"]["caller"],
            target=target,
            request=request,
            tree=tree,
            trace=trace,
            episode=chat.episode(request, header(scope, b"x-ratchet-episode-id")),
            seen=seen,
            reply=scope["state"]["headers"],
            reserve=self._quota.estimate(len(body), chat.sampling(request).max_tokens, request.n or 1),
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
            if exchange.first_token is None or not exchange.request.stream:
                raise fault from None
            await taken(send(part(_fault(exchange, fault), more=False)), self._config.idle_seconds)

    async def _answer(self, exchange: Exchange, send: Send) -> None:
        exchange.admission = await self._quota.admit(exchange.caller, exchange.request.model, exchange.reserve)
        exchange.reply += exchange.admission.headers
        try:
            answer = await self._dispatcher.ask(exchange)
        finally:
            self._dispatched(exchange)
        try:
            exchange.first_token = monotonic()
            exchange.seen.first_byte(exchange.first_token)
            headers = [
                (b"x-ratchet-policy", exchange.target.label.encode()),
                (b"x-ratchet-engine", exchange.engine.encode()),
                *(() if exchange.room.promised else (UNRECORDED,)),
            ]
            if exchange.request.stream:
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
            told = await answer.whole(self._config.idle_seconds)
            body, exchange.captured = capture_whole(told, exchange.wants, exchange.id, exchange.target.model)
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
        await taken(respond(send, 200, body, [JSON, *headers]), self._config.idle_seconds)

    async def _stream(self, exchange: Exchange, answer: Answer, headers: list[Header], send: Send) -> None:
        start: Message = {"type": "http.response.start", "status": 200, "headers": [*STREAM, *headers]}
        await taken(send(start), self._config.idle_seconds)
        try:
            await self._pump(exchange, answer, send)
            answer.answered()
            exchange.seen.generated(exchange.captured.usage)
            last = frame(DONE) if await self._record(exchange) else _fault(exchange, NOT_RECORDED)
        except (EngineBroken, aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            if exchange.stalled:
                raise ClientGone from None
            log.warning("%s broke a stream: %s", answer.replica.name, error or type(error).__name__)
            answer.broke()
            exchange.seen.broke("engine_broken")
            self._partial(exchange, "truncated")
            last = _fault(exchange, ApiError(502, "The engine broke off its answer.", code="engine_broken"))
        exchange.over = True
        await exchange.admission.settle(exchange.used)
        await taken(send(part(last, more=False)), self._config.idle_seconds)

    async def _pump(self, exchange: Exchange, answer: Answer, send: Send) -> None:
        """Relays until `[DONE]`, which it keeps back. EngineBroken, or aiohttp's errors, if it does not come."""
        capture = StreamCapture(exchange.wants, exchange.id, exchange.target.model)
        chunk, rest, loop = answer.first, b"", asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as limit:
                while True:
                    events, rest = split(rest + chunk)
                    limit.reschedule(loop.time() + self._config.idle_seconds)
                    await _forward(exchange, capture, events, send)
                    if capture.done:
                        break
                    if len(rest) > LONGEST_EVENT:
                        raise EngineBroken("an event without end")
                    limit.reschedule(loop.time() + self._config.idle_seconds)
                    chunk = await answer.more()
                    if not chunk:
                        raise EngineBroken("the stream ended before [DONE]")
        finally:
            exchange.captured = capture.captured()
        _ended(exchange)

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

    def _partial(self, exchange: Exchange, status: Status) -> None:
        """Records an answer the client did not see whole; nobody waits for it."""
        if exchange.kept and not exchange.recorded and exchange.first_token is not None:
            exchange.recorded = True
            self._recorder.offer(exchange.interaction(status, self._catalog.metric(exchange.target.owner)))


def _fault(exchange: Exchange, error: ApiError) -> bytes:
    """The event that ends a stream whose status is out already."""
    exchange.seen.failed(error.code or str(error.status))
    return frame(error.body)


async def taken(sending: Awaitable[None], seconds: float) -> None:
    """Waits until the client took what is being sent. ClientGone if it does not within `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await sending
    except TimeoutError:
        raise ClientGone from None


def _ended(exchange: Exchange) -> None:
    if not exchange.captured.finished or len(exchange.captured.choices) != (exchange.request.n or 1):
        raise EngineBroken("a choice has no end")


async def _forward(exchange: Exchange, capture: StreamCapture, events: list[bytes], send: Send) -> None:
    """Sends what the client may see of these events, also when one of them turns out broken."""
    seen: list[bytes] = []
    fault: EngineBroken | None = None
    try:
        for event in events:
            visible = capture.event(event)
            if visible is not None and not capture.done:
                seen.append(frame(visible))
    except EngineBroken as error:
        fault = error
    if seen:
        exchange.stalled = True
        await send(part(b"".join(seen)))
        exchange.stalled = False
    if fault is not None:
        raise fault


async def _watch(receive: Receive, exchange: Exchange) -> None:
    """Ends the exchange when its client goes away."""
    while (await receive())["type"] != "http.disconnect":
        pass
    exchange.end("cancelled")
