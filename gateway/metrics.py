"""What is counted, by Prometheus' client; one registry a gateway."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

DISPATCH_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0)
FIRST_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
HELD_SECONDS = 0.05
"""A request the gateway itself delayed for longer between parsed and dispatched counts as held."""


class Metrics:
    """The gateway's counters. No label takes a value from a client."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.requests = Counter("ratchet_requests", "Answered requests", ["route", "status"], registry=r)
        self.held = Counter("ratchet_held", "Requests delayed > 50 ms before dispatch", ["during_swap"], registry=r)
        self.dispatch = Histogram("ratchet_dispatch_seconds", "From parsed to dispatched", buckets=DISPATCH_BUCKETS, registry=r)
        self.first_token = Histogram(
            "ratchet_time_to_first_token_seconds", "From arrival to the engine's first byte", buckets=FIRST_TOKEN_BUCKETS, registry=r
        )
        self.recorded = Counter("ratchet_recorded", "Interactions by their status, or lost", ["status"], registry=r)
        self.untrainable = Counter("ratchet_untrainable", "Answers no policy gradient may learn from", ["reason"], registry=r)
        self.flips = Counter("ratchet_flips", "Pointer moves followed", ["policy"], registry=r)
        self.inflight = Gauge("ratchet_inflight", "Requests at the engines", registry=r)
        for during in ("true", "false"):
            self.held.labels(during)

    def dispatched(self, seconds: float, *, during_swap: bool) -> bool:
        """A request left for an engine `seconds` after it was parsed; whether it counts as held."""
        self.dispatch.observe(seconds)
        if seconds <= HELD_SECONDS:
            return False
        self.held.labels("true" if during_swap else "false").inc()
        return True

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)
