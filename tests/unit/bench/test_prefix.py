"""The workload and the arithmetic of the prefix benchmark."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from bench.dialogues import Dialogue, Shape, Turn, busiest, found, later, moved, run
from bench.gateways.figures import Samples
from bench.prefix import PREFIX, ROUND_ROBIN, STRATEGIES, add, configuration, ratios, text, verdict
from bench.replicas import Counted, counted
from ratchet.config import load
from ratchet.types import EngineRecord
from tests.support.gateway_process import BASE, end, start_fake

PAGE = b"""# HELP vllm:prefix_cache_queries_total Tokens.
vllm:prefix_cache_queries_total{engine="0",model_name="smollm2"} 200.0
vllm:prefix_cache_hits_total{engine="0",model_name="smollm2"} 64.0
vllm:external_prefix_cache_hits_total{engine="0",model_name="smollm2"} 7.0
vllm:prefix_cache_queries_created{engine="0",model_name="smollm2"} 1.7e+09
"""


def turn(dialogue: int, number: int, engine: str, *, ttft: float = 100.0, prompt: int = 100, cached: int = 0) -> Turn:
    return Turn(dialogue, number, ttft, engine, prompt, cached)


TURNS = [
    turn(0, 1, "a", ttft=900),
    turn(1, 1, "b", ttft=900),
    turn(0, 2, "a", prompt=200, cached=96),
    turn(1, 2, "a", ttft=300, prompt=200),
    turn(0, 3, "a", ttft=200, prompt=300, cached=192),
]
"""Two dialogues, one of which changes replica once."""


def test_the_counters_are_summed_over_the_engines_and_other_caches_left_out() -> None:
    assert counted([PAGE, PAGE]) == Counted(400, 128)


def test_an_engine_that_counts_no_prefix_cache_is_an_error_not_a_zero() -> None:
    with pytest.raises(ValueError, match="does not count"):
        counted([PAGE, b"vllm:num_requests_running 0\n"])


def test_a_hit_rate_is_of_what_was_looked_up_since_before() -> None:
    assert Counted(400, 128).since(Counted(200, 28)) == 0.5
    assert math.isnan(Counted(400, 128).since(Counted(400, 128)))


def test_two_strategies_send_the_same_words_after_different_beginnings() -> None:
    one, other = (Dialogue(3, salt, "0", Shape()) for salt in STRATEGIES)
    for dialogue in (one, other):
        dialogue.ask()
    beginnings = [str(dialogue.messages[0].get("content")).split(": ", 1) for dialogue in (one, other)]
    assert beginnings[0][0] != beginnings[1][0]
    assert beginnings[0][1] == beginnings[1][1]
    assert one.messages[1] == other.messages[1]
    assert Dialogue(4, ROUND_ROBIN, "0", Shape()).messages != one.messages[:1]


def test_only_a_later_turn_can_change_replica_or_be_served_by_a_cache() -> None:
    assert len(later(TURNS)) == 3
    assert moved(TURNS) == pytest.approx(1 / 3)
    assert found(later(TURNS)) == pytest.approx(288 / 700)
    assert busiest(TURNS) == 0.8


def test_shares_of_no_turns_are_nan() -> None:
    assert all(math.isnan(share(TURNS[:0])) for share in (moved, found, busiest))


def test_the_waits_are_those_of_later_turns() -> None:
    samples = Samples()
    add(samples, PREFIX, TURNS, 0.4)
    assert (samples.median(PREFIX, "p50"), samples.median(PREFIX, "p90"), samples.median(PREFIX, "hit")) == (200, 300, 0.4)


def compared(*hits: tuple[float, float], ttft: tuple[float, float] = (2.0, 1.0), second: str = "a") -> Samples:
    """Rounds with (round-robin's, prefix's) hit rates, also of later turns; these turns took `ttft` ms, on replica `second`."""
    samples = Samples()
    for pair in hits:
        for strategy, hit, wait in zip(STRATEGIES, pair, ttft, strict=True):
            add(samples, strategy, [turn(0, 1, "a"), turn(0, 2, second, ttft=wait, cached=round(100 * hit))], hit)
    return samples


def test_ratios_are_taken_round_by_round() -> None:
    samples = compared((0.2, 0.4), (0.4, 0.6))
    assert ratios(samples, "hit") == pytest.approx([2.0, 1.5])
    assert ratios(samples, "computed") == pytest.approx([0.75, 2 / 3])


def test_the_verdict_counts_a_figure_as_better_only_if_it_was_in_every_round() -> None:
    assert "It was not" not in verdict(compared((0.2, 0.4), (0.3, 0.5)))
    assert "It was not in: hit rate, prompt tokens left to compute in later turns." in verdict(compared((0.2, 0.4), (0.5, 0.3)))
    assert "It was not in: TTFT p50, TTFT p90." in verdict(compared((0.2, 0.4), ttft=(1.0, 1.0)))
    assert "better in every round in: nothing" in verdict(compared((0.4, 0.4), ttft=(1.0, 2.0)))


def test_the_verdict_says_whether_the_bound_on_load_was_reached() -> None:
    assert "never reached" in verdict(compared((0.2, 0.4)))
    assert "because of its bound on load" in verdict(compared((0.2, 0.4), second="b"))


def test_the_page_gives_every_rounds_figure() -> None:
    page = text(compared((0.2, 0.4), (0.3, 0.5)), Shape(), 2)
    assert "| `round_robin` | 20% / 30% |" in page
    assert "| `prefix` | 40% / 50% |" in page
    assert "12 open dialogues of 4 turns" in page


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_gateways_configuration_is_valid_and_differs_in_the_strategy_only(strategy: str, tmp_path: Path) -> None:
    engines = [EngineRecord(f"replica-{i}", "vllm", BASE, f"http://127.0.0.1:{i + 1}", BASE) for i in range(2)]
    path = tmp_path / "ratchet.yaml"
    path.write_text(yaml.safe_dump(configuration(strategy, engines, (1, 2))))
    config = load(path, environ={})
    assert config.gateway.routing.strategy == strategy
    assert [engine.name for engine in config.engines] == ["replica-0", "replica-1"]


async def test_every_turn_is_sent_once_with_the_whole_dialogue_before_it() -> None:
    fake = await start_fake()
    try:
        shape = Shape(dialogues=3, turns=3, concurrency=2, system_words=5, question_words=3, answer_tokens=4)
        seen = await run(fake.url, "none", BASE, shape, salt="s", seed="0")
        bodies = [request["messages"] for request in (await fake.state())["requests"]]
    finally:
        await end(fake.process)
    assert sorted((t.dialogue, t.number) for t in seen) == [(d, n) for d in range(3) for n in (1, 2, 3)]
    assert all(t.ttft > 0 and t.prompt > 0 for t in seen)
    assert sorted(len(messages) for messages in bodies) == [2, 2, 2, 4, 4, 4, 6, 6, 6]
    longest = [messages for messages in bodies if len(messages) == 6]
    assert all([*longer[:4]] in bodies for longer in longest)
    assert all(messages[2]["role"] == "assistant" and messages[2]["content"] for messages in longest)
