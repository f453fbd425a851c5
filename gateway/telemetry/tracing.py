"""Export traces over OTLP. Imported only if traces are configured, since it needs the extra `otlp`.

A request is one tree: the server's span, and below it the choice of an engine, each attempt at one (a client span, whose context is sent to
the engine), and the wait for the store. No attribute holds what a client wrote.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

import ratchet
from gateway.catalog import Target
from gateway.routing.replica import Replica
from ratchet import names
from ratchet.config.telemetry import TelemetryConfig

QUEUE = 4096
"""Spans that may wait for the collector. Past that the oldest are dropped."""
BATCH = 512
EVERY_MS = 1000.0
CLOSE_SECONDS = 3.0
TRACE_CONTEXT = (b"traceparent", b"tracestate")

_w3c = TraceContextTextMapPropagator()


class Tracing:
    """The exporter and its thread. Serving a request only appends to its bounded queue."""

    def __init__(self, config: TelemetryConfig) -> None:
        share = TraceIdRatioBased(config.sample_ratio)
        self._provider = TracerProvider(
            sampler=ParentBased(share, remote_parent_sampled=share),
            resource=Resource.create(
                {
                    "service.name": "ratchet-gateway",
                    "service.version": ratchet.__version__,
                    "service.instance.id": names.mint("gw_"),
                }
            ),
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(endpoint=f"{config.otlp_endpoint}/v1/traces", timeout=config.otlp_seconds)
        self._provider.add_span_processor(
            BatchSpanProcessor(exporter, max_queue_size=QUEUE, max_export_batch_size=BATCH, schedule_delay_millis=EVERY_MS)
        )
        self._tracer = self._provider.get_tracer("ratchet.gateway", ratchet.__version__)

    def begin(self, route: str, scope: Scope, request_id: str) -> Trace:
        """Begin the server's span, in the client's trace if it sent a valid `traceparent`."""
        carrier = {key.decode(): value.decode("latin-1") for key, value in reversed(scope["headers"]) if key in TRACE_CONTEXT}
        span = self._tracer.start_span(
            f"{scope['method']} {route}",
            _w3c.extract(carrier, Context()),
            SpanKind.SERVER,
            {"http.request.method": scope["method"], "http.route": route, "ratchet.request_id": request_id},
        )
        return Trace(self._tracer, span)

    async def close(self) -> None:
        """Send the remaining spans. If the collector does not answer, that takes CLOSE_SECONDS."""
        done, loop = asyncio.Event(), asyncio.get_running_loop()

        def shut() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # the loop ended meanwhile
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=shut, daemon=True).start()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await done.wait()
        except TimeoutError:
            return


class Trace:
    """The spans of one request."""

    def __init__(self, tracer: Tracer, server: Span) -> None:
        self._tracer = tracer
        self._server = server
        self._recording = server.is_recording()
        """False: it is not sampled. It has no children, and the headers for the engine say so."""
        self._within = set_span_in_context(server, Context())
        self._step: Span | None = None
        """The span of the choice of an engine, or of the wait for the store."""
        self._attempts: dict[str, Span] = {}
        """The spans of the attempts under way, by engine. A hedged request has two."""

    @property
    def id(self) -> str:
        """The trace's id, 32 hex."""
        return format_trace_id(self._server.get_span_context().trace_id)

    def resolved(self, target: Target) -> None:
        if self._recording:
            self._server.set_attributes({"gen_ai.request.model": target.owner, "ratchet.policy": target.label})
            self._choose()

    def _choose(self) -> None:
        self._step = self._tracer.start_span("choose engine", self._within)

    def attempt_started(self, replica: Replica, operation: str, retries: int) -> None:
        if not self._recording:
            return
        if self._step is not None:
            self._step.set_attribute("ratchet.engine", replica.name)
        self._end_step()
        self._attempts[replica.name] = self._tracer.start_span(
            f"{operation} {replica.record.model}",
            self._within,
            SpanKind.CLIENT,
            {
                "gen_ai.operation.name": operation,
                "gen_ai.provider.name": replica.record.kind,
                "gen_ai.request.model": replica.record.model,
                "server.address": replica.name,
                "http.request.resend_count": retries,
            },
        )

    def headers(self, engine: str) -> dict[str, str]:
        """The headers that make the engine's spans children of the attempt's."""
        carrier: dict[str, str] = {}
        span = self._attempts.get(engine)
        _w3c.inject(carrier, self._within if span is None else set_span_in_context(span, Context()))
        return carrier

    def answered_by(self, target: Target) -> None:
        self._server.set_attribute("ratchet.policy", target.label)

    def first_token(self, engine: str) -> None:
        if (span := self._attempts.get(engine)) is not None:
            span.add_event("first token")

    def completed(self, engine: str, read: int, written: int) -> None:
        if (span := self._attempts.pop(engine, None)) is not None:
            span.set_attributes({"gen_ai.usage.input_tokens": read, "gen_ai.usage.output_tokens": written})
            span.end()

    def attempt_failed(self, engine: str, error: str, *, again: bool) -> None:
        """`again`: another engine may be chosen now."""
        if (span := self._attempts.pop(engine, None)) is not None:
            _failed(span, error)
            if again and not self._attempts:
                self._choose()

    def recording(self) -> None:
        self._end_step()
        if self._recording:
            self._step = self._tracer.start_span("record", self._within)

    def recorded(self) -> None:
        self._end_step()

    def _end_step(self) -> None:
        if self._step is not None:
            self._step.end()
            self._step = None

    def ended(self, status: int, error: str) -> None:
        """End the spans that are still open, the server's last."""
        for span in self._attempts.values():  # the slower attempt of a hedged request, or one that the client did not wait for
            _failed(span, error or "cancelled")
        self._end_step()
        if status:
            self._server.set_attribute("http.response.status_code", status)
        if error:
            self._server.set_attribute("error.type", error)
        if status >= 500 or (error and status == 200):
            self._server.set_status(Status(StatusCode.ERROR))
        self._server.end()


def _failed(span: Span, error: str) -> None:
    span.set_attribute("error.type", error)
    span.set_status(Status(StatusCode.ERROR))
    span.end()
