"""The metrics of several workers as one exposition."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.registry import Collector

WORST: dict[str, Callable[[float, float], float]] = {"ratchet_engine_healthy": min, "ratchet_engine_breaker": max}
"""Gauges that are reported as the worst of all workers; other values are added up."""
PER_WORKER = "process_"
"""Metrics whose name begins so are reported for each worker, under the label WORKER."""
WORKER = "worker"
CUMULATIVE = ("counter", "histogram")
"""Types whose values outlive a worker: Prometheus takes a counter that falls for one that was reset."""


class Family(msgspec.Struct, array_like=True):
    """One metric with all its samples, each a name, its labels and a value."""

    name: str
    documentation: str
    kind: str
    samples: list[tuple[str, dict[str, str], float]]


Families = list[Family]


def collect(registry: CollectorRegistry) -> Families:
    """Return the metrics of `registry` as they are now."""
    metrics: Iterable[Metric] = registry.collect()
    return [Family(m.name, m.documentation, m.type, [(s.name, s.labels, s.value) for s in m.samples]) for m in metrics]


def encode(families: Families) -> bytes:
    return msgspec.msgpack.encode(families)


def decode(data: bytes) -> Families:
    """Return what was encoded; nothing for no bytes. msgspec.MsgspecError if it is malformed."""
    return msgspec.msgpack.decode(data, type=Families) if data else []


def merge(reports: Sequence[tuple[str, Families]]) -> Families:
    """Merge the workers' reports, each a worker's name and its metrics. A worker may have several."""
    heads: dict[str, Family] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for worker, families in reports:
        for family in families:
            heads.setdefault(family.name, family)
            known = values.setdefault(family.name, {})
            combine: Callable[[float, float], float] = WORST.get(family.name, operator.add)
            extra = {WORKER: worker} if family.name.startswith(PER_WORKER) else {}
            for name, labels, value in family.samples:
                key = name, tuple({**labels, **extra}.items())
                known[key] = combine(known[key], value) if key in known else value
    return [
        Family(name, head.documentation, head.kind, [(sample, dict(labels), value) for (sample, labels), value in values[name].items()])
        for name, head in heads.items()
    ]


def cumulative(past: Families, last: Families) -> Families:
    """Return the counts to keep of a worker that ended: those of its predecessors, `past`, and those it reported `last`."""
    merged = merge([("", past), ("", last)])
    return [family for family in merged if family.kind in CUMULATIVE and not family.name.startswith(PER_WORKER)]


def exposition(families: Families) -> bytes:
    """Return the metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Collector(families))
    return generate_latest(registry)


class _Collector(Collector):
    def __init__(self, families: Families) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        for family in self._families:
            metric: Any = Metric(family.name, family.documentation, family.kind)
            for name, labels, value in family.samples:
                metric.add_sample(name, labels, value)
            yield metric
