"""gateway.telemetry.observe, gateway.telemetry.metrics and gateway.telemetry.gauges by themselves."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from prometheus_client import Counter

from gateway.api.routes import DATA
from gateway.api.table import INFER, Table
from gateway.catalog import Target
from gateway.routing.replica import Replica
from gateway.telemetry import metrics, observe
from gateway.telemetry.gauges import Gauges
from gateway.telemetry.metrics import Family, Metrics
from gateway.telemetry.observe import Observer
from ratchet.config.telemetry import TelemetryConfig
from ratchet.errors import ConfigError
from ratchet.types import EngineRecord

SCOPE: dict[str, Any] = {"type": "http", "method": "POST", "headers": []}
CHAT = Table(DATA).find("/v1/chat/completions")
LABELS = {"gen_ai_operation_name": "chat", "gen_ai_request_model": "support", "gen_ai_provider_name": "vllm", "server_address": "a"}


@pytest.fixture
def replica() -> Replica:
    return Replica(EngineRecord("a", "vllm", "small", "http://127.0.0.1:1", "small"))


def value(made: Metrics, name: str, **labels: str) -> float | None:
    return made.registry.get_sample_value(name, labels)


def test_a_stream_is_counted_once_it_ended(monkeypatch: pytest.MonkeyPatch, replica: Replica) -> None:
    times = iter([100.0, 103.0, 104.0])
    monkeypatch.setattr(observe, "monotonic", lambda: next(times))
    made = Metrics()
    observation = Observer(made, TelemetryConfig()).begin(CHAT, SCOPE, "req_1")
    observation.resolved(Target("small", "support", 3), stream=True)
    observation.attempt_started(replica)
    observation.first_byte(101.0)
    observation.completed({"prompt_tokens": 7, "completion_tokens": 5})
    observation.ended(200)
    assert value(made, "gen_ai_server_time_to_first_token_seconds_sum", **LABELS) == 1
    assert value(made, "gen_ai_server_time_per_output_token_seconds_sum", **LABELS) == 0.5
    assert value(made, "gen_ai_server_request_duration_seconds_sum", **LABELS, error_type="") == 4
    assert value(made, "gen_ai_client_token_usage_sum", **LABELS, gen_ai_token_type="input") == 7
    assert value(made, "gen_ai_client_token_usage_sum", **LABELS, gen_ai_token_type="output") == 5
    assert value(made, "ratchet_requests_total", route="/v1/chat/completions", status="200") == 1


@pytest.mark.parametrize("usage", [{}, {"prompt_tokens": "7"}, {"prompt_tokens": None, "completion_tokens": -1}])
def test_usage_that_is_none_is_not_counted(replica: Replica, usage: dict[str, Any]) -> None:
    made = Metrics()
    observation = Observer(made, TelemetryConfig()).begin(CHAT, SCOPE, "req_1")
    observation.resolved(Target("small", "support", 3), stream=False)
    observation.attempt_started(replica)
    observation.completed(usage)
    observation.ended(200)
    assert value(made, "gen_ai_client_token_usage_count", **LABELS, gen_ai_token_type="input") is None
    assert value(made, "gen_ai_server_request_duration_seconds_count", **LABELS, error_type="") == 1


def test_the_first_error_told_is_the_one_that_counts_and_no_engine_is_an_empty_name() -> None:
    made = Metrics()
    observation = Observer(made, TelemetryConfig()).begin(CHAT, SCOPE, "req_1")
    observation.resolved(Target("small"), stream=False)
    observation.failed("engine_unavailable")
    observation.failed("cancelled")
    observation.ended(503)
    labels = LABELS | {"gen_ai_request_model": "small", "gen_ai_provider_name": "", "server_address": ""}
    assert value(made, "gen_ai_server_request_duration_seconds_count", **labels, error_type="engine_unavailable") == 1


def test_every_inference_route_of_the_table_has_an_operation() -> None:
    posts = [route for route in DATA if route.scopes == INFER and "POST" in route.built | route.planned and "{" not in route.path]
    assert len(posts) == 9
    assert all(route.operation for route in posts)


def test_a_family_remembers_its_children_and_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_SERIES", 2)
    family = Family(Counter("made", "Made up", ["engine"], registry=(made := Metrics()).registry))
    assert family.labels("a") is family.labels("a")
    for name in ("a", "b", "c", "d"):
        family.labels(name).inc()
    assert [value(made, "made_total", engine=name) for name in ("a", "b", "c", "other")] == [1, 1, None, 2]


def test_gauges_are_read_at_the_scrape() -> None:
    made, known = Metrics(), {("a",): 1.0}
    gauges = Gauges(made.registry)
    gauges.add("made_load", "Made up", ("engine",), lambda: known)
    gauges.add_one("made_size", "Made up", lambda: len(known))
    known[("b",)] = 2
    assert (value(made, "made_load", engine="b"), value(made, "made_size")) == (2, 2)
    del known[("b",)]
    assert value(made, "made_load", engine="b") is None


def test_traces_cost_no_import_while_they_are_off() -> None:
    ours = (
        "gateway.telemetry.tracing",
        "opentelemetry.sdk.trace",
        "opentelemetry.exporter",
    )  # redis' client imports other parts where they are
    program = f"import gateway.server.serve, sys; print([name for name in sys.modules if name.startswith({ours})])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_traces_without_the_extra_are_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gateway.telemetry.tracing", None)
    with pytest.raises(ConfigError, match=r"pip install 'ratchet-gateway\[otlp\]'") as raised:
        Observer(Metrics(), TelemetryConfig(otlp_endpoint="http://127.0.0.1:4318"))
    assert "\n" not in str(raised.value)


def test_only_more_than_fifty_milliseconds_before_dispatch_is_held() -> None:
    metrics = Metrics()
    assert not metrics.dispatched(0.05, during_swap=True)
    assert metrics.dispatched(0.051, during_swap=True)
    assert metrics.registry.get_sample_value("ratchet_held_total", {"during_swap": "true"}) == 1
    assert metrics.registry.get_sample_value("ratchet_held_total", {"during_swap": "false"}) == 0
