"""The arithmetic and the tables of the gateway benchmark."""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path

import pytest
import yaml

from bench import gateway
from bench.gateways import report
from bench.gateways.environments import version
from bench.gateways.figures import Bar, Samples, estimate, formatted, percentile, rotated, spread
from bench.gateways.measure import DIRECT, Faults
from bench.gateways.memory import MIB, Flat, Idle
from bench.gateways.mock import ROOT, Result
from bench.gateways.ours import NAME, configuration
from bench.gateways.peers import PEERS, Place, fastapi, production_stack
from bench.gateways.stacks import LOOP, by_function, by_layer, inclusive, layer, parse
from ratchet.config import load

RAW = """main (gateway/__main__.py:32);run (uvloop/__init__.py:92) 7
main (gateway/__main__.py:32);run_asgi (uvicorn/h.py:1);Relay._pump (gateway/relay/relay.py:9);Timeout.reschedule (asyncio/timeouts.py:3) 2
main (gateway/__main__.py:32);Relay._pump (gateway/relay/relay.py:9);ChoicesCapture.event (engines/vllm/capture.py:5) 3
main (gateway/__main__.py:32);Recorder._put (gateway/record/recorder.py:9);execute (redis/client.py:1);writelines (asyncio/streams.py:2) 4
main (gateway/__main__.py:32);Relay._pump (gateway/relay/relay.py:7) 1
_bootstrap (threading.py:9);_worker (concurrent/futures/thread.py:81) 90
_bootstrap (threading.py:9);_worker (concurrent/futures/thread.py:83);keep (gateway/record/outbox.py:1) 2
_bootstrap (threading.py:9);run (otel.py:1);Condition.wait (threading.py:331) 50
"""


def samples(**figures: dict[str, list[float]]) -> Samples:
    """`figures` by gateway."""
    made = Samples()
    for name, values in figures.items():
        for figure, row in values.items():
            for value in row:
                made.add({"ours": NAME, "direct": DIRECT, "smg": "SMG 1"}[name], figure, value)
    return made


@pytest.mark.parametrize(("share", "value"), [(0.5, 5.0), (0.99, 10.0), (0.0, 1.0), (1.0, 10.0)])
def test_a_percentile_is_by_nearest_rank(share: float, value: float) -> None:
    assert percentile([float(n) for n in range(10, 0, -1)], share) == value
    assert math.isnan(percentile([], share))


def test_a_ratio_is_taken_within_each_round_before_the_median() -> None:
    # A slow middle round slows both: the ratio stays 2, where that of the medians would be 2.5.
    made = samples(ours={"c8": [200, 1000, 500]}, smg={"c8": [100, 500, 200]})
    assert made.median(NAME, "c8") == 500
    assert made.ratio("c8", NAME, "SMG 1") == 2.0


def test_a_figure_that_was_not_measured_is_nan_and_adds_no_row() -> None:
    made = samples(ours={"c8": [math.nan, 3.0]})
    assert made.median(NAME, "c8") == 3.0
    assert math.isnan(made.median(NAME, "c32"))
    assert math.isnan(made.ratio("c8", NAME, "nobody"))
    assert list(made.values) == [NAME]


def test_samples_that_were_read_from_json_are_the_same() -> None:
    made = samples(ours={"c8": [1.0, 2.0]}, smg={"c8": [4.0]})
    again = Samples.of({name: dict(figures) for name, figures in made.values.items()})
    assert again.differences("c8", NAME, "SMG 1") == [-3.0]
    assert again.of_figure(NAME, "c8") == [1.0, 2.0] and again.of_figure("nobody", "c8") == []


@pytest.mark.parametrize(("count", "low", "high"), [(6, 1, 6), (8, 1, 8), (10, 2, 9), (12, 3, 10), (20, 6, 15)])
def test_the_interval_of_a_median_is_that_of_the_textbook(count: int, low: float, high: float) -> None:
    """Conover's table of the sign test: at 95 % the ranks are 1 of 6 and of 8, 2 of 10, 3 of 12, 6 of 20."""
    found = estimate([float(n) for n in range(count, 0, -1)])
    assert (found.median, found.low, found.high) == ((count + 1) / 2, low, high)


def test_the_interval_holds_the_true_median_as_often_as_it_says() -> None:
    rng = random.Random(0)
    held = [
        found.low <= 0 <= found.high for found in (estimate([rng.expovariate(1) - math.log(2) for _ in range(12)]) for _ in range(2000))
    ]
    assert 0.95 <= sum(held) / len(held) <= 0.98


def test_too_few_values_bound_nothing() -> None:
    assert estimate([1.0] * 5) == (1.0, -math.inf, math.inf)
    assert spread(estimate([1.0, 2.0])) == "1.50 (? to ?)"
    assert all(math.isnan(bound) for bound in estimate([math.nan]))
    assert spread(estimate([])) == "-"


def test_each_round_starts_with_another_gateway() -> None:
    assert [rotated(["a", "b", "c"], turn)[0] for turn in range(4)] == ["a", "b", "c", "a"]
    assert sorted(rotated(["a", "b", "c"], 2)) == ["a", "b", "c"]
    assert rotated([], 1) == []


def test_a_bar_says_whether_it_is_met_and_by_how_much_not() -> None:
    assert Bar("cost", 1.1, 1.2).row() == ("cost", "1.20x", "1.10x", "met")
    assert Bar("cost", 1.5, 1.2).verdict == "missed by 25 %"
    assert Bar("cost", math.nan, 1.2).verdict == "not measured"


@pytest.mark.parametrize(("value", "text"), [(1234.5, "1,234 us"), (12.34, "12.3 us"), (1.234, "1.23 us"), (math.nan, "-")])
def test_a_figure_has_two_or_three_digits(value: float, text: str) -> None:
    assert formatted(value, "us") == text


def test_the_bars_compare_with_the_peers_that_ran() -> None:
    made = samples(
        ours={"c8": [240], "c32": [300], "chunk": [40], "500x8 p50": [1.5], "500x8 p99": [30]},
        smg={"c8": [200], "c32": [300], "chunk": [25]},
        direct={"500x8 p50": [0.5], "500x8 p99": [5]},
    )
    found = {bar.what: bar.verdict for bar in report.bars(made, ["SMG 1"])}
    assert found["CPU a request, c8, against SMG 1"] == "met"
    assert found["CPU a chunk, against SMG 1"] == "met"
    assert found["CPU a request, c8, against LiteLLM"] == "not measured"
    assert found["CPU a request, c8, against production-stack"] == "not measured"
    assert found["added p50 at 500/s x 8 chunks"] == "met"
    assert found["added p99 at 500/s x 8 chunks"] == "missed by 150 %"
    assert found["added p50 at 100/s x 80 chunks"] == "not measured"


def test_the_tables_name_every_gateway_and_what_ours_is_to_it() -> None:
    made = samples(ours={"c8": [100], "c8 store": [25], "c32": [100], "c32 store": [10]}, smg={"c8": [200]}, direct={})
    assert "| SMG 1 | 200 | - |" in report.costs(made, [NAME, "SMG 1"])
    assert "| SMG 1 | 0.50x | - | - |" in report.ratios(made, ["SMG 1"])
    assert "25.0 us a request at c8 (0.25x the gateway's)" in report.store(made)
    assert report.opened(made, [NAME]).count("\n") == 3


def test_the_proof_says_so_if_an_answer_is_missing() -> None:
    result = Result(3, 2, 1.0, 0, 0, 0, "", {"cut": 1}, [], [])
    faults = Faults(answered=2, recorded=2, read_back=1)
    faults.count("x", result)
    assert faults.every_one_recorded and "NOT" not in report.proof(faults)
    assert "Failed requests: x 1." in report.proof(faults)
    faults.recorded = 1
    assert report.proof(faults).startswith("**NOT every answer was recorded.**")
    assert not Faults(answered=2, recorded=2).every_one_recorded


def test_memory_is_reported_in_mib_from_the_second_tenth_on() -> None:
    flat = Flat(1000, 1000, 0, [50 * MIB, 60 * MIB, *[61 * MIB] * 8])
    idle = Idle(1000, 60 * MIB, 60 * MIB + 1000 * 2048, 62 * MIB, 61 * MIB, 0)
    text = report.memory(flat, idle)
    assert "+1.0 MiB from the second tenth on" in text
    assert "(2.0 KiB a stream)" in text
    assert report.memory(None, None) == ""


def test_the_cost_of_a_prompt_is_reported_by_the_byte() -> None:
    assert "| Ratchet | 100 | 200 | 11.1 | 2.00x |" in report.prompts({"Ratchet": {1000: 100.0, 10_000: 200.0}})


def test_a_sample_belongs_to_the_innermost_layer_and_a_timeout_to_its_caller() -> None:
    counts = by_layer(parse(RAW))
    assert counts[LOOP] == 7
    assert counts["relay, exchange"] == 2 + 1
    assert counts["capture and cut"] == 3
    assert counts["store client (redis, hiredis)"] == 4
    assert counts["recorder"] == 2
    assert sum(counts.values()) == 19, "a thread that waits is no sample"


HOT_FILES = {
    "ratchet/buffer/wire.py": "store client (redis, hiredis)",
    "ratchet/buffer/schema.py": "recorder: pack (msgpack, zstd)",
    "gateway/record/recorder.py": "recorder",
    "engines/vllm/cut.py": "capture and cut",
    "engines/stream.py": "capture and cut",
    "gateway/server/strict.py": "parse and check",
    "gateway/telemetry/observe.py": "metrics, traces, logs",
    "gateway/relay/transport.py": "upstream",
    "engines/vllm/wire.py": "upstream",
    "gateway/server/client.py": "uvicorn (HTTP in, answer out)",
    "gateway/server/plane.py": "plane, keys, quota",
    "gateway/relay/exchange.py": "relay, exchange",
    "gateway/server/serve.py": LOOP,
}


@pytest.mark.parametrize("file", HOT_FILES)
def test_a_file_of_the_hot_path_is_where_its_layer_says(file: str) -> None:
    assert (ROOT / file).is_file()
    assert layer(["main (gateway/__main__.py:1)", f"call ({file}:1)"]) == HOT_FILES[file]


def test_functions_are_counted_without_their_lines() -> None:
    found = parse(RAW)
    assert by_function(found)["Relay._pump (gateway/relay/relay.py)"] == 1
    assert inclusive(found)["Relay._pump (gateway/relay/relay.py)"] == 6
    assert inclusive(found)["main (gateway/__main__.py)"] == 17


def test_our_yaml_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "ratchet.yaml"
    path.write_text(yaml.safe_dump(configuration("http://127.0.0.1:1", (1, 2))))
    assert load(path, environ={}).engines[0].url == "http://127.0.0.1:1"


def test_each_peer_has_a_name_with_its_locked_version() -> None:
    assert [name.split()[0] for name in PEERS] == ["SMG", "vllm-router", "production-stack", "FastAPI", "LiteLLM"]
    assert version("smg", "smg")[0].isdigit()
    assert version("smg", "no-such-package") == "?"


def test_a_peer_that_needs_a_checkout_says_so(tmp_path: Path) -> None:
    place = Place("http://e", 1, tmp_path / "p", None)
    with pytest.raises(gateway.Missing, match="--production-stack"):
        production_stack(place)
    assert list(fastapi(place).argv[-2:]) == ["1", "http://e"]


def test_a_quick_run_is_short_without_litellm_and_writes_no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gateway.py", "--quick", "--seconds", "2"])
    args = gateway._arguments()
    assert (args.rounds, args.seconds, args.requests, args.no_docs) == (1, 2.0, 10_000, True)
    assert "LiteLLM" not in args.peers and "SMG" in args.peers
    monkeypatch.setattr(sys, "argv", ["gateway.py"])
    full = gateway._arguments()
    assert (full.rounds, full.requests, full.no_docs) == (3, 100_000, False)
    assert "3 interleaved rounds" in gateway.introduction(full)
