from __future__ import annotations

import asyncio

import pytest

from ratchet.demo.client import Client
from ratchet.demo.exchange import Log
from ratchet.demo.heldout import SAMPLES, Scored, measure
from ratchet.demo.task import HELDOUT, SYSTEM
from ratchet.demo.traffic import Pace, judge, read, users
from tests.integration.demo.replayed_gateway import Replay, serving

BRISK = Pace(reader_pause=0.001, panel_pause=0.001, panel_size=4)


async def test_a_reader_scores_the_one_answer_it_got() -> None:
    async with serving(Replay(texts=["Sure!"])) as replay, Client(replay.url, "key", Log()) as client:
        await read(client, "assistant", "refunds")
    assert [(f["choice"], f["value"]) for f in replay.feedback] == [(0, 1.0)]


async def test_a_panel_rates_every_choice_by_its_own_text() -> None:
    async with serving(Replay(texts=["Sure!", "No."])) as replay, Client(replay.url, "key", Log()) as client:
        await judge(client, "assistant", "refunds", 4)
    assert sorted((f["choice"], f["value"]) for f in replay.feedback) == [(0, 1.0), (1, 0.0), (2, 1.0), (3, 0.0)]
    assert len({f["target"] for f in replay.feedback}) == 1


async def test_an_answer_that_failed_is_not_rated() -> None:
    async with serving(Replay(fault="no [DONE]")) as replay, Client(replay.url, "key", Log()) as client:
        await read(client, "assistant", "refunds")
    assert replay.feedback == []


async def test_users_keep_asking_until_the_context_ends_and_then_finish_what_they_read() -> None:
    log = Log()
    async with serving(Replay()) as replay, Client(replay.url, "key", log) as client:
        async with users(client, "assistant", 0, BRISK):
            async with asyncio.timeout(30):
                while len(replay.feedback) < 30:
                    replay.answered.clear()
                    await replay.answered.wait()
        finished = len(replay.chats)
    assert len(replay.chats) == finished
    assert log.failures == []
    assert all(e.ended is not None for e in log.exchanges)
    assert {chat["n"] for chat in replay.chats} == {1, 4}
    assert all(chat["model"] == "assistant" for chat in replay.chats)


async def test_users_stop_at_once_when_the_demo_is_interrupted() -> None:
    async with serving(Replay()) as replay, Client(replay.url, "key", Log()) as client:
        with pytest.raises(asyncio.CancelledError):
            async with users(client, "assistant", 0, Pace(reader_pause=1000, panel_pause=1000)):
                raise asyncio.CancelledError


async def test_the_held_out_table_asks_the_pinned_version_every_held_out_topic() -> None:
    async with serving(Replay(texts=["Sure!", "No."])) as replay, Client(replay.url, "key", Log()) as client:
        scored = await measure(client, "assistant@0", seed=0)
    assert scored.n == len(HELDOUT) * SAMPLES
    assert scored.mean == 0.5
    assert {chat["model"] for chat in replay.chats} == {"assistant@0"}
    assert all(chat["messages"][0]["content"] == SYSTEM for chat in replay.chats)
    assert len({chat["seed"] for chat in replay.chats}) == len(HELDOUT)


async def test_an_answer_of_another_version_is_a_failure_and_not_in_the_table() -> None:
    log = Log()
    async with serving(Replay(version="assistant@3")) as replay, Client(replay.url, "key", log) as client:
        scored = await measure(client, "assistant@2", seed=0)
    assert scored.n == 0
    assert log.counts["failed"] == len(HELDOUT)
    assert "assistant@3" in log.failures[0]


def test_an_empty_table_has_a_mean_of_zero_and_not_an_error() -> None:
    assert Scored("assistant@0", {}).mean == 0.0
