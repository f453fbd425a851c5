"""Counting: prometheus_client's own histograms and label look-ups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Histogram

from bench.without.optimisation import optimisation, override, replace
from gateway.telemetry.metrics import Family, Histograms


class LibraryHistograms:
    """The interface of `metrics.Histograms` on prometheus_client's histogram."""

    def __init__(self, name: str, about: str, labels: Sequence[str], bounds: tuple[float, ...], registry: CollectorRegistry) -> None:
        self._histogram = Histogram(name, about, labels, buckets=bounds, registry=registry)

    def labels(self, *values: str) -> Histogram:
        return self._histogram.labels(*values) if values else self._histogram


@optimisation("histograms of our own, filled by one thread", instead="prometheus_client's, with a lock for each observation")
def histograms() -> None:
    replace(Histograms, LibraryHistograms)


@optimisation("a counter's labelled children are remembered", instead="prometheus_client looks them up each time")
def remembered_children() -> None:
    def labels(self: Family[Any], *values: str) -> Any:
        return self._metric.labels(*values)

    override(Family, "labels", labels)
