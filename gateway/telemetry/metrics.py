"""The gateway's Prometheus metrics. docs/observability.md explains each name."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Generic, NamedTuple, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric, ProcessCollector, disable_created_metrics, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

from gateway.errors import ApiError

# The `_created` series beside each counter and histogram would add a third to a scrape, for no use.
disable_created_metrics()  # type: ignore[no-untyped-call]

DISPATCH_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0)
WRITE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0)
# Bounds of OpenTelemetry's conventions for GenAI metrics.
DURATION_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
FIRST_TOKEN_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
PER_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
TOKEN_BUCKETS = tuple(4**exponent for exponent in range(14))

GEN_AI = ["gen_ai_operation_name", "gen_ai_request_model", "gen_ai_provider_name", "server_address"]
HELD_SECONDS = 0.05
"""A request counts as held if it takes the gateway longer than this from parsed to dispatched."""
MAX_SERIES = 1024
"""Combinations of label values of a metric, since engines are added and removed at run time. Further ones are counted together."""
OTHER = "other"

M = TypeVar("M", bound=MetricWrapperBase)


class Buckets:
    """The counts of a histogram. prometheus_client's own takes a lock and walks all bounds for each observation."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class Histograms(Collector):
    """A histogram with labels, filled by the event loop's thread only."""

    def __init__(self, name: str, about: str, labels: Sequence[str], bounds: tuple[float, ...], registry: CollectorRegistry) -> None:
        self._name, self._about, self._labels, self._bounds = name, about, labels, bounds
        self._known: dict[tuple[str, ...], Buckets] = {}
        if not labels:
            self.labels()
        registry.register(self)

    def labels(self, *values: str) -> Buckets:
        """The histogram with these label values; past MAX_SERIES, one that all further ones share."""
        found = self._known.get(values)
        if found is None:
            if len(self._known) >= MAX_SERIES:
                values = (OTHER,) * len(self._labels)
            found = self._known.setdefault(values, Buckets(self._bounds))
        return found

    def describe(self) -> Iterable[Metric]:
        return [HistogramMetricFamily(self._name, self._about, labels=self._labels)]

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self._name, self._about, labels=self._labels)
        names = [*(repr(float(bound)) for bound in self._bounds), "+Inf"]
        for values, buckets in list(self._known.items()):
            family.add_metric(values, list(zip(names, accumulate(list(buckets.counts)), strict=True)), buckets.total)
        yield family


class Family(Generic[M]):
    """A metric with labels that remembers its children, since prometheus_client's `labels` costs more than counting."""

    def __init__(self, metric: M) -> None:
        self._metric = metric
        self._known: dict[tuple[str, ...], M] = {}

    def labels(self, *values: str) -> M:
        """The child with these label values, in the metric's order; past MAX_SERIES, one that all further ones share."""
        child = self._known.get(values)
        if child is None:
            if len(self._known) >= MAX_SERIES:
                return self._metric.labels(*(OTHER for _ in values))
            child = self._known[values] = self._metric.labels(*values)
        return child


class Call(NamedTuple):
    """The labels of the GenAI metrics, in the order of GEN_AI: configured names, never a client's text."""

    operation: str
    model: str
    provider: str = ""
    server: str = ""


class GenAI:
    """The metrics of OpenTelemetry's GenAI conventions."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def histogram(name: str, about: str, labels: list[str], bounds: tuple[float, ...]) -> Histograms:
            return Histograms(name, about, labels, bounds, registry)

        self._duration = histogram(
            "gen_ai_server_request_duration_seconds", "From arrival to the last byte", [*GEN_AI, "error_type"], DURATION_BUCKETS
        )
        self._first_token = histogram(
            "gen_ai_server_time_to_first_token_seconds", "From arrival to a stream's first byte", GEN_AI, FIRST_TOKEN_BUCKETS
        )
        self._per_token = histogram(
            "gen_ai_server_time_per_output_token_seconds", "Of a stream, for each output token after the first", GEN_AI, PER_TOKEN_BUCKETS
        )
        self._tokens = histogram("gen_ai_client_token_usage", "Tokens of a request", [*GEN_AI, "gen_ai_token_type"], TOKEN_BUCKETS)

    def ended(self, call: Call, seconds: float, error: str) -> None:
        """A request took `seconds`. `error` is its error code, or ""."""
        self._duration.labels(*call, error).observe(seconds)

    def streamed(self, call: Call, first: float, rest: float, tokens: int) -> None:
        """A stream is complete: the first byte after `first` seconds, the end `rest` seconds later, `tokens` in all (0: unknown)."""
        self._first_token.labels(*call).observe(first)
        if tokens > 1:
            self._per_token.labels(*call).observe(rest / (tokens - 1))

    def used(self, call: Call, kind: str, tokens: int) -> None:
        """An engine counted `tokens` of a `kind`: input or output."""
        self._tokens.labels(*call, kind).observe(tokens)


class Metrics:
    """The metrics of one gateway process. No label has a client's text."""

    def __init__(self) -> None:
        self.registry = r = CollectorRegistry()
        ProcessCollector(registry=r)
        self.gen_ai = GenAI(r)
        self.requests = self._counter("ratchet_requests", "Answered requests", "route", "status")
        self.held = self._counter("ratchet_held", "Requests delayed > 50 ms before dispatch", "during_swap")
        self.dispatch = Histograms("ratchet_dispatch_seconds", "From parsed to dispatched", (), DISPATCH_BUCKETS, r).labels()
        self.inflight = Gauge("ratchet_inflight", "Inference requests under way", registry=r)
        self.engine_failures = self._counter("ratchet_engine_failures", "Requests that an engine failed", "engine", "stage")
        self.flips = self._counter("ratchet_flips", "Pointer moves followed", "policy")
        self.recorded = self._counter("ratchet_recorded", "Interactions by their status, or lost", "status")
        self.untrainable = self._counter("ratchet_untrainable", "Answers no policy gradient may learn from", "reason")
        self.recorder_write = Histograms(
            "ratchet_recorder_write_seconds", "One write of a group of answers to the store", (), WRITE_BUCKETS, r
        ).labels()
        self.quota_refused = self._counter("ratchet_quota_refused", "Requests past their key's quota", "bound")
        self.quota_unchecked = Counter("ratchet_quota_unchecked", "Requests let through because the store was away", registry=r)
        self.refused_early = self._counter("ratchet_turned_away", "Requests answered before a route was found", "code")
        self.routed = self._counter("ratchet_routed", "Requests sent to an engine, and how it was chosen", "engine", "how")
        self.retries = self._counter("ratchet_retries", "Requests sent once more, and why", "reason")
        self.hedges = self._counter("ratchet_hedges", "Requests sent to a second engine too, and which of them answered", "won")
        self.fallbacks = self._counter("ratchet_fallbacks", "Answers of another version, since none could serve the live one", "policy")
        self.ejections = self._counter("ratchet_ejections", "Times an engine was left out as an outlier", "engine")
        self.spooled = Counter("ratchet_spooled", "Answers written to the spool", registry=r)
        self.drained = Counter("ratchet_drained", "Answers brought from a spool to the store", registry=r)
        self.set_aside = self._counter("ratchet_set_aside", "Spooled answers that never reach the store", "reason")
        self.unrecorded = Counter("ratchet_unrecorded", "Answers served unrecorded, and told so", registry=r)
        self.worker_restarts = self._counter("ratchet_worker_restarts", "Times another worker was started again", "worker")
        for during in ("true", "false"):
            self.held.labels(during)

    def _counter(self, name: str, about: str, *labels: str) -> Family[Counter]:
        return Family(Counter(name, about, labels, registry=self.registry))

    def dispatched(self, seconds: float, *, during_swap: bool) -> bool:
        """A request was sent to an engine `seconds` after it was parsed. Returns whether it counts as held."""
        self.dispatch.observe(seconds)
        if seconds <= HELD_SECONDS:
            return False
        self.held.labels("true" if during_swap else "false").inc()
        return True

    def early_refusal(self, error: ApiError) -> None:
        """An error was sent before the application was called."""
        self.refused_early.labels(error.code or "").inc()

    def text(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)
