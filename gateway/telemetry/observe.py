"""Count, trace and log each request. A plane makes one `Observation` per request; whoever serves the request calls its methods."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.types import Scope

from gateway.api.table import Route
from gateway.telemetry import logs
from gateway.telemetry.metrics import Call, Metrics
from ratchet.clock import monotonic
from ratchet.config.telemetry import TelemetryConfig
from ratchet.errors import ConfigError

if TYPE_CHECKING:
    from gateway.catalog import Target
    from gateway.routing.replica import Replica
    from gateway.telemetry.tracing import Trace, Tracing

TRACED = frozenset({"infer", "feedback"})
"""Scopes of the routes whose requests are traced: those of clients, and no probes or scrapes."""


class Observer:
    """Makes the observations. ConfigError if traces are configured and the extra `otlp` is not installed."""

    def __init__(self, metrics: Metrics, config: TelemetryConfig) -> None:
        self.metrics = metrics
        self.access = config.access_log
        self._tracing = _tracing(config)

    def begin(self, route: Route | None, scope: Scope, request_id: str) -> Observation:
        """Observe a request for `route`; None: for a path that does not exist."""
        trace = None
        if self._tracing is not None and route is not None and route.scopes & TRACED:
            trace = self._tracing.begin(route.path, scope, request_id)
        path, operation = (route.path, route.operation) if route is not None else ("other", "")
        return Observation(self, path, operation, scope["method"], request_id, trace)

    async def close(self) -> None:
        """Send the remaining spans, within a few seconds."""
        if self._tracing is not None:
            await self._tracing.close()


def _tracing(config: TelemetryConfig) -> Tracing | None:
    if config.otlp_endpoint is None:
        return None
    try:
        tracing: Tracing = importlib.import_module("gateway.telemetry.tracing").Tracing(config)
    except ImportError as error:
        raise ConfigError(f"gateway.telemetry.otlp_endpoint needs the extra: pip install 'ratchet-gateway[otlp]' ({error.name})") from None
    return tracing


class Observation:
    """One request. Each method is one event of it: cheap, never failing, and given nothing that the client wrote."""

    __slots__ = (
        "_access", "_began", "_end", "_error", "_first", "_method", "_metrics", "_operation", "_replica", "_request_id", "_retries",
        "_route", "_stream", "_target", "_trace", "_usage",
    )  # fmt: skip

    def __init__(self, observer: Observer, route: str, operation: str, method: str, request_id: str, trace: Trace | None) -> None:
        self._metrics = observer.metrics
        self._access = observer.access
        self._route = route
        self._operation = operation
        self._method = method
        self._request_id = request_id
        self._trace = trace
        self._began = monotonic()
        self._target: Target | None = None
        self._replica: Replica | None = None
        self._stream = False
        self._retries = -1
        self._first: float | None = None
        self._end: float | None = None
        self._usage: Mapping[str, Any] = {}
        self._error = ""

    @property
    def _engine(self) -> str:
        return self._replica.name if self._replica is not None else ""

    def resolved(self, target: Target, *, stream: bool) -> None:
        """The target is known. Until the first attempt, an engine is being chosen."""
        self._target, self._stream = target, stream
        if self._trace is not None:
            self._trace.resolved(target)

    def attempt_started(self, replica: Replica) -> None:
        """The request is being sent to this replica."""
        self._replica = replica
        self._retries += 1
        if self._trace is not None:
            self._trace.attempt_started(replica, self._operation, self._retries)

    def trace_headers(self, replica: Replica, clients: dict[str, str]) -> dict[str, str]:
        """The trace headers for the engine: those of the attempt's span, or the client's own if traces are off."""
        return clients if self._trace is None else self._trace.headers(replica.name)

    def attempt_failed(self, replica: Replica, error: str) -> None:
        """The attempt at this replica failed before its first byte. `error` is the name of a class or a code."""
        self._metrics.engine_failures.labels(replica.name, "before").inc()
        if self._trace is not None:
            self._trace.attempt_failed(replica.name, error, again=True)

    def answered_by(self, target: Target, replica: Replica) -> None:
        """This replica answers, for this target: not the last attempt's if the request was hedged, or a fallback's."""
        if (target, replica) == (self._target, self._replica):
            return
        self._target, self._replica = target, replica
        if self._trace is not None:
            self._trace.answered_by(target)

    def first_byte(self, at: float) -> None:
        """The engine's first byte arrived at that monotonic second."""
        self._first = at
        if self._trace is not None and self._stream:
            self._trace.first_token(self._engine)

    def completed(self, usage: Mapping[str, Any]) -> None:
        """The answer arrived to its end; `usage` is the engine's."""
        self._end, self._usage = monotonic(), usage
        if self._trace is not None:
            self._trace.completed(self._engine, *_tokens(usage))

    def engine_broke(self, error: str) -> None:
        """The engine broke off an answer that it had begun."""
        self._metrics.engine_failures.labels(self._engine, "after").inc()
        if self._trace is not None:
            self._trace.attempt_failed(self._engine, error, again=False)

    def recording(self) -> None:
        """The last bytes now wait until the answer is durable."""
        if self._trace is not None:
            self._trace.recording()

    def recorded(self) -> None:
        """The answer is durable."""
        if self._trace is not None:
            self._trace.recorded()

    def failed(self, code: str) -> None:
        """The request ends in an error. Only the first call counts."""
        self._error = self._error or code

    def ended(self, status: int) -> None:
        """The last byte was sent, or the client disconnected (499)."""
        now = monotonic()
        self._metrics.requests.labels(self._route, str(status)).inc()
        if self._target is not None:
            self._count(self._target, now)
        if self._trace is not None:
            self._trace.ended(status, self._error)
        if self._access:
            self._log(status, now)

    def _count(self, target: Target, now: float) -> None:
        record = self._replica.record if self._replica is not None else None
        served = (record.kind, record.name) if record is not None else ("", "")
        call, metrics = Call(self._operation, target.owner, *served), self._metrics.gen_ai
        metrics.ended(call, now - self._began, self._error)
        read, written = _tokens(self._usage)
        if self._end is not None and self._first is not None and self._stream:
            metrics.streamed(call, self._first - self._began, self._end - self._first, written)
        if read:
            metrics.used(call, "input", read)
        if written:
            metrics.used(call, "output", written)

    def _log(self, status: int, now: float) -> None:
        fields: dict[str, Any] = {"request_id": self._request_id, "method": self._method, "route": self._route, "status": status}
        if self._target is not None:
            fields["policy"] = self._target.label
            fields["model"] = self._target.owner
        if self._replica is not None:
            fields["engine"] = self._replica.name
            fields["retries"] = self._retries
        if self._error:
            fields["error"] = self._error
        if self._first is not None:
            fields["first_byte_ms"] = round((self._first - self._began) * 1000, 2)
        fields["duration_ms"] = round((now - self._began) * 1000, 2)
        if self._trace is not None:
            fields["trace_id"] = self._trace.id
        logs.access.info("%s %s %d", self._method, self._route, status, extra={logs.FIELDS: fields})


def _tokens(usage: Mapping[str, Any]) -> tuple[int, int]:
    """Input and output tokens in OpenAI's usage or its newer form; 0: not given."""
    return _count(usage, "prompt_tokens", "input_tokens"), _count(usage, "completion_tokens", "output_tokens")


def _count(usage: Mapping[str, Any], name: str, newer: str) -> int:
    value = usage.get(name, usage.get(newer))
    return value if isinstance(value, int) and value > 0 else 0
