"""The parts of `gateway.workers`: the merged metrics of several workers, and the channel between two."""

from __future__ import annotations

import asyncio
import socket

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry.gauges import Gauges
from gateway.telemetry.metrics import Metrics
from gateway.workers import aggregation
from gateway.workers.channel import LENGTH_BYTES, MAX_MESSAGE_BYTES, Channel, Reply


def worker(requests: int, *, healthy: float = 1, breaker: float = 0, engine: str = "a") -> aggregation.Families:
    """What a worker with so many requests reports, encoded and decoded."""
    metrics = Metrics()
    gauges = Gauges(metrics.registry)
    gauges.add("ratchet_engine_healthy", "Whether it may be chosen", ("engine",), lambda: {(engine,): healthy})
    gauges.add("ratchet_engine_breaker", "0 closed", ("engine",), lambda: {(engine,): breaker})
    for number in range(requests):
        metrics.requests.labels("/v1/chat/completions", "200").inc()
        metrics.dispatch.observe(0.001 * number)
        metrics.inflight.inc()
    return aggregation.decode(aggregation.encode(aggregation.collect(metrics.registry)))


def shown(*reports: aggregation.Families) -> dict[str, Metric]:
    """The exposition of workers 0, 1, ... as Prometheus reads it."""
    text = aggregation.exposition(aggregation.merge([(str(n), families) for n, families in enumerate(reports)])).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def values(family: Metric) -> dict[tuple[str, ...], float]:
    return {(sample.name, *sample.labels.values()): sample.value for sample in family.samples}


def test_counters_histograms_and_loads_add_up() -> None:
    found = shown(worker(2), worker(3))
    assert values(found["ratchet_requests"]) == {("ratchet_requests_total", "/v1/chat/completions", "200"): 5}
    assert values(found["ratchet_inflight"]) == {("ratchet_inflight",): 5}
    dispatch = values(found["ratchet_dispatch_seconds"])
    assert dispatch["ratchet_dispatch_seconds_count",] == dispatch["ratchet_dispatch_seconds_bucket", "+Inf"] == 5
    assert dispatch["ratchet_dispatch_seconds_bucket", "0.0005"] == 2
    assert dispatch["ratchet_dispatch_seconds_sum",] == pytest.approx(0.004)


def test_an_engines_state_is_the_worst_that_a_worker_reports() -> None:
    found = shown(worker(0, healthy=1, breaker=2), worker(0, healthy=0), worker(0, engine="b"))
    assert values(found["ratchet_engine_healthy"]) == {("ratchet_engine_healthy", "a"): 0, ("ratchet_engine_healthy", "b"): 1}
    assert values(found["ratchet_engine_breaker"]) == {("ratchet_engine_breaker", "a"): 2, ("ratchet_engine_breaker", "b"): 0}


def test_process_metrics_are_reported_per_worker() -> None:
    found = shown(worker(0), worker(0))
    assert values(found["process_resident_memory_bytes"]).keys() == {("process_resident_memory_bytes", n) for n in "01"}


def test_one_workers_report_is_not_changed_by_the_merge() -> None:
    report = worker(4)
    alone = {family.name: family for family in aggregation.merge([("0", report)]) if not family.name.startswith(aggregation.PER_WORKER)}
    assert alone == {family.name: family for family in report if not family.name.startswith(aggregation.PER_WORKER)}


def test_the_counts_of_a_worker_that_ended_stay_and_its_gauges_do_not() -> None:
    past = aggregation.cumulative(aggregation.cumulative([], worker(2)), worker(3))
    assert {family.kind for family in past} == {"counter", "histogram"}
    found = shown(worker(1), past)
    assert values(found["ratchet_requests"]) == {("ratchet_requests_total", "/v1/chat/completions", "200"): 6}
    assert values(found["ratchet_inflight"]) == {("ratchet_inflight",): 1}


async def test_messages_arrive_whole_and_the_end_is_noticed() -> None:
    ours, theirs = socket.socketpair()
    one, other = await Channel.over(ours), await Channel.over(theirs)
    sending = asyncio.create_task(one.send(Reply(7, b"x" * 2**20)))
    assert len(await other.receive()) > 2**20
    await sending
    one.close()
    with pytest.raises(EOFError):
        await other.receive()
    other.close()


async def test_a_message_past_the_bound_is_not_waited_for() -> None:
    ours, theirs = socket.socketpair()
    channel = await Channel.over(ours)
    theirs.sendall((MAX_MESSAGE_BYTES + 1).to_bytes(LENGTH_BYTES, "big"))
    with pytest.raises(EOFError, match="bytes"):
        await channel.receive()
    channel.close()
    theirs.close()
