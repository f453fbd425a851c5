"""Gauges that are read only when the metrics are scraped, so that requests cost nothing.

A scrape runs in a thread of its own, and reads a few attributes of each source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.routing.breaker import CODES
from gateway.routing.fleet import Fleet
from gateway.routing.replica import Replica
from ratchet.clock import monotonic

Read = Callable[[], Mapping[tuple[str, ...], float]]
"""Returns the present values by their label values."""


class Gauges(Collector):
    """All gauges. `add` one with its name, help text, labels and the function that reads it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._reads: list[tuple[str, str, tuple[str, ...], Read]] = []
        registry.register(self)

    def add(self, name: str, about: str, labels: tuple[str, ...], read: Read) -> None:
        self._reads.append((name, about, labels, read))

    def add_one(self, name: str, about: str, read: Callable[[], float]) -> None:
        """A gauge without labels."""
        self.add(name, about, (), lambda: {(): read()})

    def collect(self) -> Iterable[GaugeMetricFamily]:
        for name, about, labels, read in self._reads:
            family = GaugeMetricFamily(name, about, labels=labels)
            for values, value in read().items():
                family.add_metric(values, value)
            yield family


def add_fleet(gauges: Gauges, fleet: Fleet) -> None:
    """Add the health and load of each replica."""

    def each(value: Callable[[Replica], float]) -> Read:
        return lambda: {(replica.name,): value(replica) for replica in list(fleet.all())}

    gauges.add("ratchet_engine_healthy", "Whether the engine may be chosen", ("engine",), each(lambda r: float(r.healthy)))
    gauges.add("ratchet_engine_tokens", "Tokens reserved at the engine", ("engine",), each(lambda r: r.tokens))
    gauges.add("ratchet_engine_breaker", "0 closed, 1 half-open, 2 open", ("engine",), each(lambda r: CODES[r.breaker.state(monotonic())]))
    gauges.add("ratchet_engine_inflight", "Requests at the engine", ("engine",), each(lambda r: r.total))
