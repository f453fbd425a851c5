"""gateway.workers by itself: the sums of several workers' metrics, and the link between two."""

from __future__ import annotations

import asyncio
import socket

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry.gauges import Gauges
from gateway.telemetry.metrics import Metrics
from gateway.workers import sums
from gateway.workers.link import HEAD, LONGEST, Answer, Link


def worker(requests: int, *, healthy: float = 1, breaker: float = 0, engine: str = "a") -> sums.Families:
    """What a worker tells that had so many requests; by the wire and back."""
    made = Metrics()
    gauges = Gauges(made.registry)
    gauges.add("ratchet_engine_healthy", "Whether it may be chosen", ("engine",), lambda: {(engine,): healthy})
    gauges.add("ratchet_engine_breaker", "0 closed", ("engine",), lambda: {(engine,): breaker})
    for number in range(requests):
        made.requests.labels("/v1/chat/completions", "200").inc()
        made.dispatch.observe(0.001 * number)
        made.inflight.inc()
    return sums.unpacked(sums.packed(sums.collected(made.registry)))


def shown(*told: sums.Families) -> dict[str, Metric]:
    """The exposition of workers 0, 1, ... as Prometheus reads it."""
    text = sums.text(sums.merged([(str(n), families) for n, families in enumerate(told)])).decode()
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


def test_of_an_engines_state_the_worst_is_told() -> None:
    found = shown(worker(0, healthy=1, breaker=2), worker(0, healthy=0), worker(0, engine="b"))
    assert values(found["ratchet_engine_healthy"]) == {("ratchet_engine_healthy", "a"): 0, ("ratchet_engine_healthy", "b"): 1}
    assert values(found["ratchet_engine_breaker"]) == {("ratchet_engine_breaker", "a"): 2, ("ratchet_engine_breaker", "b"): 0}


def test_processes_are_told_apart() -> None:
    found = shown(worker(0), worker(0))
    assert values(found["process_resident_memory_bytes"]).keys() == {("process_resident_memory_bytes", n) for n in "01"}


def test_one_workers_sum_is_what_it_told() -> None:
    told = worker(4)
    alone = {family.name: family for family in sums.merged([("0", told)]) if not family.name.startswith(sums.EACH)}
    assert alone == {family.name: family for family in told if not family.name.startswith(sums.EACH)}


def test_the_counts_of_the_dead_stay_and_their_gauges_go() -> None:
    past = sums.lasting(sums.lasting([], worker(2)), worker(3))
    assert {family.kind for family in past} == {"counter", "histogram"}
    found = shown(worker(1), past)
    assert values(found["ratchet_requests"]) == {("ratchet_requests_total", "/v1/chat/completions", "200"): 6}
    assert values(found["ratchet_inflight"]) == {("ratchet_inflight",): 1}


async def test_messages_arrive_whole_and_the_end_is_noticed() -> None:
    ours, theirs = socket.socketpair()
    one, other = await Link.over(ours), await Link.over(theirs)
    sending = asyncio.create_task(one.send(Answer(7, b"x" * 2**20)))
    assert len(await other.receive()) > 2**20
    await sending
    one.close()
    with pytest.raises(EOFError):
        await other.receive()
    other.close()


async def test_a_message_past_the_bound_is_not_waited_for() -> None:
    ours, theirs = socket.socketpair()
    link = await Link.over(ours)
    theirs.sendall((LONGEST + 1).to_bytes(HEAD, "big"))
    with pytest.raises(EOFError, match="bytes"):
        await link.receive()
    link.close()
    theirs.close()
