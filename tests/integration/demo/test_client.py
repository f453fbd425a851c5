from __future__ import annotations

import pytest

from ratchet.demo.client import Client
from ratchet.demo.exchange import Exchange, Log
from ratchet.demo.task import MAX_TOKENS
from tests.integration.demo.replayed_gateway import Replay, serving


async def streamed(replay: Replay, n: int = 1) -> tuple[Exchange, Log]:
    log = Log()
    async with serving(replay), Client(replay.url, "key", log) as client:
        exchange = await client.stream("assistant", "refunds", n)
    return exchange, log


async def test_a_whole_stream_is_no_failure_and_every_choice_is_put_together() -> None:
    exchange, log = await streamed(Replay(), n=3)
    assert exchange.error is None
    assert exchange.answers == {0: "Sure!", 1: "No.", 2: "Sure!"}
    assert exchange.policy == "assistant"
    assert exchange.id.startswith("chatcmpl-")
    assert exchange.tokens == 7
    assert log.counts == {"total": 1, "failed": 0, "streamed": 1}


async def test_gaps_are_counted_within_one_choice_and_not_across_choices() -> None:
    exchange, log = await streamed(Replay(), n=2)
    assert {index: len(stamps) for index, stamps in exchange.stamps.items()} == {0: 5, 1: 3}
    assert len(log.gaps) == 4 + 2
    assert all(gap.seconds >= 0 for gap in log.gaps)


@pytest.mark.parametrize(
    ("fault", "said"),
    [("no [DONE]", "no [DONE]"), ("unfinished", "0 of 1 choices finished"), ("error event", "not recorded"), ("503", "503")],
)
async def test_an_answer_that_is_not_whole_is_a_failed_request(fault: str, said: str) -> None:
    exchange, log = await streamed(Replay(fault=fault))
    assert exchange.error is not None and said in exchange.error
    assert log.counts == {"total": 1, "failed": 1, "streamed": 1}
    assert len(log.failures) == 1


async def test_a_gateway_that_is_away_is_a_failed_request_and_not_an_exception() -> None:
    log = Log()
    async with Client("http://127.0.0.1:9", "key", log) as client:
        exchange = await client.stream("assistant", "refunds")
        single = await client.ask("assistant@0", "refunds", 2, seed=1)
    assert exchange.error is not None and single.error is not None
    assert log.counts["failed"] == 2


async def test_a_request_is_short_sampled_at_temperature_one_and_asks_for_usage() -> None:
    replay = Replay()
    await streamed(replay, n=8)
    sent = replay.chats[0]
    assert (sent["n"], sent["max_tokens"], sent["temperature"], sent["stream"]) == (8, MAX_TOKENS, 1.0, True)
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]


async def test_a_held_out_question_is_not_recorded_so_that_nothing_learns_from_it() -> None:
    replay, log = Replay(), Log()
    async with serving(replay), Client(replay.url, "key", log) as client:
        exchange = await client.ask("assistant@0", "refunds", 2, seed=5)
    assert exchange.answers == {0: "Sure!", 1: "No."}
    assert replay.chats[0]["store"] is False
    assert replay.chats[0]["seed"] == 5
    assert log.counts == {"total": 1, "failed": 0, "streamed": 0}


async def test_a_reward_names_its_answer_and_can_be_posted_twice_without_counting_twice() -> None:
    replay, log = Replay(), Log()
    async with serving(replay), Client(replay.url, "key", log) as client:
        await client.rate("chatcmpl-1", 3, 1.0)
        await client.rate("chatcmpl-1", 3, 1.0)
    body = {"target": "chatcmpl-1", "choice": 3, "metric": "reward", "value": 1.0, "idempotency_key": "chatcmpl-1/3"}
    assert replay.feedback == [body, body]
    assert log.posted == 2


async def test_refused_feedback_is_a_failed_request() -> None:
    log = Log()
    async with serving(Replay(fault="feedback")) as replay, Client(replay.url, "key", log) as client:
        await client.rate("chatcmpl-1", 0, 1.0)
    assert log.counts == {"total": 1, "failed": 1, "streamed": 0}
    assert "store away" in log.failures[0]
