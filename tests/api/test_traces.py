"""One span tree from a request to its engine, over real OTLP to a real collector."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.proto.trace.v1.trace_pb2 import Status as SpanStatus

from ratchet.process import free_port
from tests.support.gateway_process import BASE, POLICY, Bench, bench
from tests.support.otlp_collector import Collector, attributes, collector

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def told() -> AsyncIterator[Collector]:
    async with collector() as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def traced(told: Collector, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    telemetry = {"otlp_endpoint": told.url, "access_log": True, "log_format": "json"}
    async with bench(tmp_path_factory.mktemp("traced"), engines=2, telemetry=telemetry) as made:
        yield made


def parent(sampled: str = "01") -> tuple[str, str, str]:
    """A client's trace id, span id and `traceparent`."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return trace, span, f"00-{trace}-{span}-{sampled}"


def named(spans: list[Span], name: str) -> list[Span]:
    return [span for span in spans if span.name == name]


async def carried(made: Bench) -> list[str]:
    """The `traceparent` of every request the engines saw."""
    return [trace for fake in made.fakes.values() for trace in (await fake.state())["traces"]]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_request_is_one_tree_from_the_client_to_the_engine(traced: Bench, told: Collector, stream: bool) -> None:
    trace, span, header = parent()
    answer = await traced.chat("say:hello", headers={"traceparent": header, "x-request-id": "mine-1"}, stream=stream)
    assert answer.status_code == 200
    spans = await told.trace(trace)
    (server,) = (s for s in spans if s.kind == Span.SPAN_KIND_SERVER)
    (choice,) = named(spans, "choose engine")
    (client,) = named(spans, f"chat {BASE}")
    (record,) = named(spans, "record")
    assert server.parent_span_id.hex() == span
    assert {s.parent_span_id for s in (choice, client, record)} == {server.span_id}
    assert len(spans) == 4
    assert server.name == "POST /v1/chat/completions"
    engine = answer.headers["x-ratchet-engine"]
    assert attributes(server) == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "ratchet.request_id": "mine-1",
        "ratchet.policy": f"{POLICY}@0",
        "gen_ai.request.model": POLICY,
    }
    assert attributes(choice) == {"ratchet.engine": engine}
    found = attributes(client)
    assert client.kind == Span.SPAN_KIND_CLIENT
    assert found.pop("gen_ai.usage.input_tokens") > 0
    assert found.pop("gen_ai.usage.output_tokens") > 0
    assert found == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "fake",
        "gen_ai.request.model": BASE,
        "server.address": engine,
        "http.request.resend_count": 0,
    }
    assert [event.name for event in client.events] == (["first token"] if stream else [])
    assert f"00-{trace}-{client.span_id.hex()}-01" in await carried(traced)
    assert header not in await carried(traced)
    starts = [s.start_time_unix_nano for s in (server, choice, client, record)]
    assert starts == sorted(starts)
    assert all(s.start_time_unix_nano <= s.end_time_unix_nano <= server.end_time_unix_nano for s in spans)
    assert told.resource["service.name"] == "ratchet-gateway"


async def test_each_try_is_a_span_of_its_own(traced: Bench, told: Collector) -> None:
    for fake in traced.fakes.values():
        await fake.faults(refuse=500, times=1)
    trace, _, header = parent()
    answer = await traced.chat(headers={"traceparent": header})
    spans = await told.trace(trace)
    tries = sorted(named(spans, f"chat {BASE}"), key=lambda s: s.start_time_unix_nano)
    assert [attributes(s)["http.request.resend_count"] for s in tries] == list(range(len(tries)))
    assert len(tries) >= 2
    assert {attributes(s)["server.address"] for s in tries} == set(traced.fakes)
    assert tries[0].status.code == SpanStatus.STATUS_CODE_ERROR
    assert attributes(tries[0])["error.type"] == "EngineUnavailable"
    assert answer.status_code in (200, 503)
    for fake in traced.fakes.values():
        await fake.faults()


async def test_both_engines_of_a_hedged_request_have_a_span_and_a_parent_of_their_own(told: Collector, tmp_path: Path) -> None:
    async with bench(tmp_path, engines=2, telemetry={"otlp_endpoint": told.url}, routing={"hedge_seconds": 0.05}) as made:
        for fake in made.fakes.values():
            await fake.faults(token_ms=20)
        trace, _, header = parent()
        answer = await made.chat("say:a slow one", headers={"traceparent": header})
        spans = await told.trace(trace)
        tries = {attributes(s)["server.address"]: s for s in named(spans, f"chat {BASE}")}
        assert tries.keys() == set(made.fakes)
        winner = tries.pop(answer.headers["x-ratchet-engine"])
        (loser,) = tries.values()
        assert winner.status.code == SpanStatus.STATUS_CODE_UNSET
        assert attributes(winner)["gen_ai.usage.output_tokens"] > 0
        assert attributes(loser)["error.type"] == "cancelled"
        assert {f"00-{trace}-{s.span_id.hex()}-01" for s in (winner, loser)} <= set(await carried(made))


async def test_a_stream_that_breaks_is_an_error_in_its_spans(traced: Bench, told: Collector) -> None:
    for fake in traced.fakes.values():
        await fake.faults(die_after=2)
    trace, _, header = parent()
    answer = await traced.chat("say:hello there", headers={"traceparent": header}, stream=True)
    for fake in traced.fakes.values():
        await fake.faults()
    assert "engine_broken" in answer.text
    spans = await told.trace(trace)
    (server,) = (s for s in spans if s.kind == Span.SPAN_KIND_SERVER)
    assert (server.status.code, attributes(server)["error.type"]) == (SpanStatus.STATUS_CODE_ERROR, "engine_broken")
    assert [attributes(s)["error.type"] for s in named(spans, f"chat {BASE}")] == ["engine_broken"]
    await traced.healthy(*traced.fakes)


@pytest.mark.parametrize(
    ("key", "model", "status", "code"), [("nobody", POLICY, 401, "invalid_api_key"), ("client", "made-up", 404, "model_not_found")]
)
async def test_a_refused_request_is_a_span_without_children(
    traced: Bench, told: Collector, key: str, model: str, status: int, code: str
) -> None:
    trace, _, header = parent()
    assert (await traced.chat(key=key, model=model, headers={"traceparent": header})).status_code == status
    (span,) = await told.trace(trace)
    assert (attributes(span)["http.response.status_code"], attributes(span)["error.type"]) == (status, code)
    assert "made-up" not in str(span)
    assert span.status.code == SpanStatus.STATUS_CODE_UNSET


async def test_a_client_that_samples_nothing_is_heeded_and_its_trace_goes_on_at_the_engine(traced: Bench, told: Collector) -> None:
    trace, span, header = parent("00")
    assert (await traced.chat(headers={"traceparent": header})).status_code == 200
    (passed,) = [value for value in await carried(traced) if trace in value]
    assert passed.endswith("-00")
    assert span not in passed
    later, _, sampled = parent()
    await traced.chat(headers={"traceparent": sampled})
    await told.trace(later)
    assert not [s for s in told.spans if s.trace_id.hex() == trace]


@pytest.mark.parametrize("header", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "ff-" + "a" * 32 + "-" + "b" * 16 + "-01"])
async def test_a_traceparent_that_means_nothing_begins_a_new_trace(traced: Bench, told: Collector, header: str) -> None:
    before = await carried(traced)
    answer = await traced.chat(headers={"traceparent": header})
    assert answer.status_code == 200
    (new,) = set(await carried(traced)) - set(before)
    spans = await told.trace(new.split("-")[1])
    assert [s.parent_span_id for s in spans if s.kind == Span.SPAN_KIND_SERVER] == [b""]


async def test_probes_and_scrapes_are_not_traced_and_the_access_line_names_the_trace(traced: Bench, told: Collector) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        await traced.call("GET", path, key="metrics")
    trace, _, header = parent()
    await traced.chat(headers={"traceparent": header})
    await told.trace(trace)
    assert {s.name for s in told.spans if s.kind == Span.SPAN_KIND_SERVER} == {"POST /v1/chat/completions"}
    lines: list[dict[str, Any]] = [json.loads(line) for line in traced.log().splitlines()]
    assert [line["status"] for line in lines if line.get("trace_id") == trace] == [200]


async def test_a_collector_that_is_away_costs_no_answer_and_no_end(tmp_path: Path) -> None:
    async with bench(tmp_path, telemetry={"otlp_endpoint": f"http://127.0.0.1:{free_port()}", "otlp_seconds": 1}) as made:
        answers = await asyncio.gather(*(made.chat(store=False) for _ in range(50)))
        assert {answer.status_code for answer in answers} == {200}
        assert made.process is not None
        began = time.monotonic()
        made.process.terminate()
        await asyncio.wait_for(made.process.wait(), 15)
        assert time.monotonic() - began < 10
        assert made.process.returncode == 0
        assert "say:" not in made.log()


async def test_without_traces_the_clients_own_headers_reach_the_engine_untouched(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        _, _, header = parent()
        await made.chat(headers={"traceparent": header})
        assert header in await carried(made)
