"""The hot path: an inference request from the client to a replica and back, recorded on the way. Its route's dialect knows the form.

Plain ASGI. A stream's bytes go out as they come; its last event, or a whole answer, waits until the interaction is durable.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping

from starlette.types import Message, Receive, Scope, Send

from gateway.access.quota import Quota
from gateway.catalog import Catalog
from gateway.dialects import Dialect
from gateway.dialects.base import episode
from gateway.errors import ApiError, unavailable
from gateway.record.recorder import NOTHING_TO_RECORD, Recorder, Reservation, reservation_size
from gateway.relay.answer import Answer
from gateway.relay.clocks import Clocks
from gateway.relay.dispatch import Dispatcher
from gateway.relay.exchange import READING, SENDING, Exchange
from gateway.relay.request import InferenceRequest
from gateway.relay.stream import Forwarder
from gateway.relay.transport import TransportError
from gateway.server import strict
from gateway.server.http import JSON, ClientDisconnected, Header, body_message, header, read_body, respond
from gateway.server.state import RequestState
from gateway.telemetry.metrics import Metrics
from ratchet import names
from ratchet.clock import monotonic
from ratchet.config import GatewayConfig
from ratchet.errors import EngineBroken, EngineError, StoreUnavailable
from ratchet.types import Status

STREAM: list[Header] = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
UNRECORDED: Header = (b"x-ratchet-recorded", b"false")
NOT_RECORDED = unavailable("The answer could not be recorded.", "not_recorded")
TRACE = (b"traceparent", b"tracestate")
PROMPT_SECONDS = 5.0
"""How long an engine may take to give a prompt's ids in a call of its own."""

log = logging.getLogger(__name__)


class Relay:
    """Serves all inference requests of a gateway. `running` holds those under way by their ids."""

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
        self.clocks = Clocks(config, self.running)
        self.draining = False
        self._entered = 0
        self._config = config
        self._catalog = catalog
        self._dialects = dialects
        self._dispatcher = dispatcher
        self._recorder = recorder
        self._metrics = metrics
        self._quota = quota

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._refuse_if_draining()
        if self._entered >= self._config.limits.max_inflight:
            raise ApiError(429, "Too many requests are in flight.", code="too_many_requests", retry_after=1)
        self._entered += 1  # a body that is being read takes memory too
        try:
            await self._enter(scope, receive, send)
        finally:
            self._entered -= 1

    def _refuse_if_draining(self) -> None:
        if self.draining:
            raise unavailable("The gateway is shutting down.", "draining")

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = monotonic()
        body = await read_body(scope, receive, self._config.limits.max_body_bytes)
        self._refuse_if_draining()
        request = self._request(scope, body, started)
        del body  # its parsed form is kept; both would take twice the memory
        reservation = await self._reserve(request)
        exchange = Exchange(request, request.ask, request.target, reservation, _this_task())
        self.running[request.id] = exchange
        self._metrics.inflight.inc()
        exchange.watch_client()
        try:
            if request.client.disconnected:
                raise ClientDisconnected
            await self._serve(exchange, send)
        finally:
            exchange.end()
            self._metrics.inflight.dec()
            self._recorder.release(reservation)
            del self.running[request.id]
            await exchange.admission.settle(exchange.used_tokens)

    async def _reserve(self, request: InferenceRequest) -> Reservation:
        if not request.to_record:
            return NOTHING_TO_RECORD
        ask = request.ask
        return await self._recorder.reserve(reservation_size(request.size, ask.expected, ask.sampling.max_tokens))

    def _request(self, scope: Scope, body: bytes, started: float) -> InferenceRequest:
        dialect = self._dialects[scope["path"]]
        ask = dialect.check(strict.parse(body, self._config.limits.max_depth), self._config)
        parsed = monotonic()
        target = self._catalog.resolve(ask.model)
        state: RequestState = scope["state"]
        observation = state["observation"]
        observation.resolved(target, stream=ask.stream)
        trace = {key.decode(): value for key in TRACE if (value := header(scope, key)) is not None and value.isascii()}
        return InferenceRequest(
            id=names.mint(dialect.prefix),
            caller=state["caller"],
            target=target,
            dialect=dialect,
            ask=ask,
            trace=trace,
            episode=episode(ask, header(scope, b"x-ratchet-episode-id")),
            observation=observation,
            response_headers=state["response_headers"],
            client=state["connection"],
            send=state["server_send"],
            reserved_tokens=self._quota.estimate(len(body), ask.sampling.max_tokens, ask.expected),
            started=started,
            parsed=parsed,
            size=len(body),
            session=header(scope, b"x-session-id") or "",
            during_swap=target.policy in self._catalog.swapping,
            cpu_seconds=time.thread_time(),
        )

    async def _serve(self, exchange: Exchange, send: Send) -> None:
        """Answer the request. If that is stopped from outside, record what came of it."""
        try:
            await self._answer(exchange, send)
        except ClientDisconnected:
            self._record_partial(exchange, "cancelled")
            raise
        except asyncio.CancelledError:
            if exchange.interrupted is None:
                raise
            exchange.task.uncancel()
            self._record_partial(exchange, exchange.interrupted)
            if exchange.interrupted == "cancelled":
                raise ClientDisconnected from None
            fault = unavailable("The gateway is shutting down.", "draining")
            if exchange.answer is None or not exchange.ask.stream:
                raise fault from None
            await _finish(exchange, send, _fault(exchange, fault))

    async def _answer(self, exchange: Exchange, send: Send) -> None:
        request = exchange.request
        exchange.admitted(await self._quota.admit(request.caller, request.ask.model, request.reserved_tokens))
        exchange.begin_dispatching(await request.dialect.prepare(request.ask, request.caller))
        try:
            answer = await self._dispatcher.dispatch(exchange)
        finally:
            self._observe_dispatch(exchange)
        try:
            exchange.begin_reading(answer)
            request.observation.first_byte(exchange.progress_at)
            headers = [
                (b"x-ratchet-policy", exchange.target.label.encode()),
                (b"x-ratchet-engine", exchange.engine.encode()),
                *(() if exchange.reservation.promised else (UNRECORDED,)),
            ]
            if exchange.ask.stream:
                await self._stream(exchange, answer, headers, send)
            else:
                await self._whole(exchange, answer, headers, send)
        finally:
            answer.close()

    def _observe_dispatch(self, exchange: Exchange) -> None:
        if exchange.dispatched_at is None:
            return
        request = exchange.request
        seconds = exchange.dispatched_at - request.parsed
        if self._metrics.dispatched(seconds, during_swap=request.during_swap):
            used = time.thread_time() - request.cpu_seconds
            log.warning("a request was held %.0f ms; the gateway itself worked %.0f ms since it was parsed", seconds * 1000, used * 1000)

    async def _whole(self, exchange: Exchange, answer: Answer, headers: list[Header], send: Send) -> None:
        request = exchange.request
        try:
            whole = await answer.whole()
            body, captured = answer.replica.wire.whole(request.path, whole, exchange.ask.wants, request.id, exchange.target.model)
            exchange.capture(captured)
            _check_complete(exchange)
            answer.answered()
            request.observation.completed(captured.usage)
        except EngineBroken as error:
            log.warning("%s: %s", answer.replica.name, error)
            self._engine_broke(exchange, answer)
            raise ApiError(502, "The engine's answer could not be read.", code="engine_broken") from None
        if not await self._record(exchange):
            headers.append(UNRECORDED)
        await _settle(exchange)
        exchange.begin_finishing()
        await respond(send, 200, body, [JSON, *headers])

    async def _stream(self, exchange: Exchange, answer: Answer, headers: list[Header], send: Send) -> None:
        await _send(exchange, send, {"type": "http.response.start", "status": 200, "headers": [*STREAM, *headers]})
        send = exchange.request.send  # what follows the start needs no more than the server's own
        try:
            last = await self._forward(exchange, answer, send)
            answer.answered()
            exchange.request.observation.completed(exchange.captured.usage)
            if not await self._record(exchange):
                last = _fault(exchange, NOT_RECORDED)
        except (EngineBroken, TransportError) as error:
            log.warning("%s broke a stream: %s", answer.replica.name, error or type(error).__name__)
            self._engine_broke(exchange, answer)
            last = _fault(exchange, ApiError(502, "The engine broke off its answer.", code="engine_broken"))
        await _settle(exchange)
        await _finish(exchange, send, last)

    async def _forward(self, exchange: Exchange, answer: Answer, send: Send) -> bytes:
        """Forward a stream up to its last event, which is held back and returned. EngineBroken, TransportError if it does not arrive."""
        request = exchange.request
        capture = answer.replica.wire.capture(request.path, exchange.ask.wants, request.id, exchange.target.model)
        forwarder = Forwarder(exchange, capture)
        try:
            forwarder.forward(answer.first)
            while not forwarder.finished:
                if forwarder.paused:
                    await _send(exchange, send, body_message(b""))  # ASGI's way to wait for the client
                    forwarder.paused = False
                await answer.feed(forwarder.forward)
                if not (forwarder.finished or forwarder.paused):
                    raise EngineBroken("the stream ended before its last event")
        except BaseException:
            with contextlib.suppress(EngineBroken):  # a second error must not hide the one that is being handled
                exchange.capture(capture.captured())
            raise
        exchange.capture(capture.captured())
        _check_complete(exchange)
        return capture.last

    async def _record(self, exchange: Exchange) -> bool:
        """Wait until the answer is durable. False if it is not, though it was promised."""
        if not exchange.to_record:
            return True
        if exchange.captured.lacks_prompt:
            await _ask_for_prompt(exchange)
        exchange.begin_recording()
        exchange.request.observation.recording()
        try:
            await self._recorder.write(exchange.interaction("complete", self._catalog.metric(exchange.target.owner)))
        except StoreUnavailable as error:
            log.error("an answer was promised and could not be recorded: %s", error)
            return False
        exchange.request.observation.recorded()
        return True

    def _engine_broke(self, exchange: Exchange, answer: Answer) -> None:
        answer.broke()
        exchange.request.observation.engine_broke("engine_broken")
        self._record_partial(exchange, "truncated")

    def _record_partial(self, exchange: Exchange, status: Status) -> None:
        """Record an answer that the client did not see whole, unless that was done, without waiting for it."""
        if exchange.to_record and exchange.state in (READING, SENDING):
            exchange.begin_recording()
            self._recorder.submit(exchange.interaction(status, self._catalog.metric(exchange.target.owner)))


async def _ask_for_prompt(exchange: Exchange) -> None:
    """Ask the engine for the prompt's ids, where it gives them only in answer to a call of its own.

    Without them the answer is recorded all the same, and no policy gradient learns from it.
    """
    if exchange.answer is None:
        return
    replica, sent = exchange.answer.replica, exchange.ask.sent
    try:
        async with asyncio.timeout(PROMPT_SECONDS):
            ids = await replica.engine.prompt_ids(exchange.request.path, sent, exchange.target.adapter or replica.served)
    except (EngineError, TimeoutError) as error:
        log.warning("%s did not give the ids of a prompt: %s", replica.name, error or type(error).__name__)
    else:
        exchange.capture(exchange.captured.with_prompt(ids))


def _this_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("not called from a task")
    return task


async def _send(exchange: Exchange, send: Send, message: Message) -> None:
    """Send a part of a stream, and wait until the client has taken enough of what it was sent."""
    exchange.begin_sending()
    await send(message)
    exchange.resume_reading()


async def _settle(exchange: Exchange) -> None:
    exchange.begin_settling()
    await exchange.admission.settle(exchange.used_tokens)


async def _finish(exchange: Exchange, send: Send, last: bytes) -> None:
    """Send the last bytes of a stream."""
    exchange.begin_finishing()
    await send(body_message(last, more=False))


def _fault(exchange: Exchange, error: ApiError) -> bytes:
    """The event that ends a stream with an error, since its status was sent long ago."""
    exchange.request.observation.failed(error.code or str(error.status))
    return exchange.request.dialect.fault(error)


def _check_complete(exchange: Exchange) -> None:
    """EngineBroken unless each choice that was asked for has come to its end."""
    if not exchange.request.dialect.recorded:
        return
    if not exchange.captured.finished or len(exchange.captured.choices) != exchange.ask.expected:
        raise EngineBroken("a choice has no end")
