"""The metrics of several workers as one exposition."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.registry import Collector

WORST: dict[str, Callable[[float, float], float]] = {"ratchet_engine_healthy": min, "ratchet_engine_breaker": max}
"""Gauges of which the worst of the workers is told; all other values add up."""
EACH = "process_"
"""What begins so is told of each worker, by the label WORKER."""
WORKER = "worker"
LASTING = ("counter", "histogram")
"""Types whose values outlive their process: Prometheus takes one that falls for one that began again at zero."""


class Family(msgspec.Struct, array_like=True):
    """One metric with all its samples: name, labels, value."""

    name: str
    about: str
    kind: str
    samples: list[tuple[str, dict[str, str], float]]


Families = list[Family]


def collected(registry: CollectorRegistry) -> Families:
    """What `registry` holds now."""
    metrics: Iterable[Metric] = registry.collect()
    return [Family(m.name, m.documentation, m.type, [(s.name, s.labels, s.value) for s in m.samples]) for m in metrics]


def packed(families: Families) -> bytes:
    return msgspec.msgpack.encode(families)


def unpacked(data: bytes) -> Families:
    """What `packed` made; nothing of nothing. msgspec.MsgspecError."""
    return msgspec.msgpack.decode(data, type=Families) if data else []


def merged(told: Sequence[tuple[str, Families]]) -> Families:
    """The families of all, each once; `told`: a worker's name and what it told. A worker may be there more than once."""
    heads: dict[str, Family] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for worker, families in told:
        for family in families:
            heads.setdefault(family.name, family)
            known = values.setdefault(family.name, {})
            both: Callable[[float, float], float] = WORST.get(family.name, operator.add)
            mine = {WORKER: worker} if family.name.startswith(EACH) else {}
            for name, labels, value in family.samples:
                key = name, tuple({**labels, **mine}.items())
                known[key] = both(known[key], value) if key in known else value
    return [
        Family(name, head.about, head.kind, [(sample, dict(labels), value) for (sample, labels), value in values[name].items()])
        for name, head in heads.items()
    ]


def lasting(past: Families, last: Families) -> Families:
    """What stays of a worker that ended: its `past` ones' counts and those it told `last`."""
    return [f for f in merged([("", past), ("", last)]) if f.kind in LASTING and not f.name.startswith(EACH)]


def text(families: Families) -> bytes:
    """Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Told(families))
    return generate_latest(registry)


class _Told(Collector):
    def __init__(self, families: Families) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        for family in self._families:
            metric: Any = Metric(family.name, family.about, family.kind)
            for name, labels, value in family.samples:
                metric.add_sample(name, labels, value)
            yield metric
