"""Metrics of a real gateway after real traffic, against their page and the dashboard."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry import metrics
from tests.support.gateway_process import BASE, POLICY, Bench, bench, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| `(?P<name>[a-z_]+)` \| (?P<kind>counter|gauge|histogram) \| *(?P<labels>[^|]*?) *\|", re.MULTILINE)
HISTOGRAMS = re.compile(r"_(bucket|sum|count)$")
GEN_AI = {"gen_ai_operation_name": "chat", "gen_ai_request_model": POLICY, "gen_ai_provider_name": "fake", "server_address": "fake-0"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def used(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    """A gateway that has answered in every way it can: streams, whole answers, errors, a swap."""
    async with bench(tmp_path_factory.mktemp("used")) as made:
        for stream in (True, False):
            assert (await made.chat("say:hello there", stream=stream)).status_code == 200
        await made.chat("say:hello", model=BASE, top_p=0.5)
        await made.chat(model="made-up-by-a-client")
        await made.chat(key="nobody")
        await made.call("GET", "/made-up-by-a-client")
        await made.fakes["fake-0"].faults(die_after=2, times=1)
        assert "engine_broken" in (await made.chat("say:hello there", stream=True)).text
        await made.fakes["fake-0"].faults(die_after=0, times=3)
        await made.chat()
        await made.fakes["fake-0"].faults()
        await made.healthy("fake-0")
        await made.publish(1)

        async def recorded() -> float:
            return await made.metric("ratchet_recorded_total", status="truncated")

        await until(recorded, "the broken answer is recorded")
        yield made


async def families(made: Bench) -> dict[str, Metric]:
    """The exposition as Prometheus' own parser reads it, by the names that a query uses."""
    text = (await made.call("GET", "/metrics", key="metrics")).text
    found = list(text_string_to_metric_families(text))
    return {family.name + ("_total" if family.type == "counter" else ""): family for family in found}


def page() -> dict[str, tuple[str, set[str]]]:
    """What docs/observability.md tells: type and labels of each metric."""
    text = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    return {row["name"]: (row["kind"], set(re.findall(r"`(\w+)`", row["labels"]))) for row in ROW.finditer(text)}


def expressions() -> list[str]:
    """The dashboard's queries."""
    board = json.loads((ROOT / "deploy" / "grafana" / "ratchet.json").read_text(encoding="utf-8"))
    return [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]


async def test_the_exposition_is_sound_by_prometheus_own_parser(used: Bench) -> None:
    for name, family in (await families(used)).items():
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram"), name
        seen = [(s.name, tuple(sorted(s.labels.items()))) for s in family.samples]
        assert len(seen) == len(set(seen)), name
        for count in (s for s in family.samples if s.name == family.name + "_count"):
            inside = [s for s in family.samples if s.name == family.name + "_bucket" and count.labels.items() <= s.labels.items()]
            values = [s.value for s in inside]
            assert values == sorted(values)
            assert (inside[-1].labels["le"], inside[-1].value) == ("+Inf", count.value)


@pytest.mark.parametrize(
    ("name", "labels", "bounds"),
    [
        ("gen_ai_server_request_duration_seconds", {"error_type": ""}, metrics.DURATION_BUCKETS),
        ("gen_ai_server_time_to_first_token_seconds", {}, metrics.FIRST_TOKEN_BUCKETS),
        ("gen_ai_server_time_per_output_token_seconds", {}, metrics.PER_TOKEN_BUCKETS),
        ("gen_ai_client_token_usage", {"gen_ai_token_type": "input"}, metrics.TOKEN_BUCKETS),
        ("gen_ai_client_token_usage", {"gen_ai_token_type": "output"}, metrics.TOKEN_BUCKETS),
    ],
)
async def test_the_conventions_names_labels_and_bounds_are_kept(
    used: Bench, name: str, labels: dict[str, str], bounds: tuple[float, ...]
) -> None:
    family = (await families(used))[name]
    mine = [s for s in family.samples if s.name == name + "_bucket" and s.labels.items() >= {**GEN_AI, **labels}.items()]
    assert [float(s.labels["le"]) for s in mine] == [*bounds, float("inf")]
    assert mine[-1].value >= 1


async def test_first_and_later_tokens_are_told_of_whole_streams_only(used: Bench) -> None:
    before = [await used.metric(f"gen_ai_server_time_{of}_seconds_count", **GEN_AI) for of in ("to_first_token", "per_output_token")]
    await used.chat("say:hello there")
    await used.chat("say:hello there", stream=True)
    after = [await used.metric(f"gen_ai_server_time_{of}_seconds_count", **GEN_AI) for of in ("to_first_token", "per_output_token")]
    assert after == [count + 1 for count in before]


async def test_tokens_are_those_the_engine_counted(used: Bench) -> None:
    async def total(kind: str) -> float:
        return await used.metric("gen_ai_client_token_usage_sum", **GEN_AI, gen_ai_token_type=kind)

    before = [await total(kind) for kind in ("input", "output")]
    usage = (await used.chat("say:hello there")).json()["usage"]
    after = [await total(kind) for kind in ("input", "output")]
    assert [late - early for late, early in zip(after, before, strict=True)] == [usage["prompt_tokens"], usage["completion_tokens"]]


async def test_a_failure_is_told_by_its_code_and_the_engine_that_failed(used: Bench) -> None:
    counts = (await families(used))["gen_ai_server_request_duration_seconds"].samples
    errors = {(s.labels["error_type"], s.labels["server_address"]) for s in counts if s.name.endswith("_count")}
    assert {("engine_broken", "fake-0"), ("engine_unavailable", "fake-0"), ("", "fake-0")} <= errors
    for stage in ("before", "after"):
        assert await used.metric("ratchet_engine_failures_total", engine="fake-0", stage=stage) >= 1


async def test_no_label_holds_what_a_client_wrote(used: Bench) -> None:
    text = (await used.call("GET", "/metrics", key="metrics")).text
    assert "made-up" not in text
    models = {s.labels["gen_ai_request_model"] for s in (await families(used))["gen_ai_client_token_usage"].samples}
    assert models == {POLICY, BASE}


async def test_the_page_and_the_exposition_name_the_same_metrics_with_the_same_labels(used: Bench) -> None:
    told, found = page(), await families(used)
    assert {name: kind for name, (kind, _) in told.items()} == {name: family.type for name, family in found.items()}
    for name, family in found.items():
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == told[name][1], name


async def test_every_metric_and_label_of_the_dashboard_is_exported(used: Bench) -> None:
    exported = await families(used)
    labels = set.union(*(labels for _, labels in page().values()), {"job", "instance"})
    for expression in expressions():
        words = set(re.findall(r"\b[a-z]+_[a-z_]+\b", re.sub(r'"[^"]*"|\$\w+', "", expression)))
        asked = {HISTOGRAMS.sub("", word) for word in words if word.startswith(("gen_ai_", "ratchet_", "process_"))} - labels
        assert asked, expression
        assert asked <= exported.keys(), expression
        grouped = {name.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for name in group.split(",")}
        assert grouped <= set.union(*(page()[name][1] for name in asked), {"le", "job", "instance"}), expression
    shown = {HISTOGRAMS.sub("", word) for expression in expressions() for word in re.findall(r"\w+", expression)}
    assert exported.keys() - shown == {"process_virtual_memory_bytes", "process_start_time_seconds"}


async def test_an_idle_gateway_exports_the_same_families_as_a_busy_one(used: Bench, tmp_path: Path) -> None:
    async with bench(tmp_path, engines=0) as made:
        assert (await families(made)).keys() == (await families(used)).keys()
