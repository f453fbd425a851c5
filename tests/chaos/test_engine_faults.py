"""Rows 5-8 of reliability.md: engines die before the first byte, in mid-stream and with their adapters; clients leave.

A tenth of the counts by default; RATCHET_FAULTS=full for the counts of the promise.
"""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from engines.fake import model
from tests.support.fault_figures import FULL, measured
from tests.support.gateway_process import POLICY, Bench, bench, events, recorded, until
from tests.support.load_generator import asks, under_load

DEATHS = 20 if FULL else 5
BREAKS = 100 if FULL else 10
RESTARTS = 20 if FULL else 5
LEAVERS = 100 if FULL else 10
"""Clients at each of 1, 50 and 99 %."""
TOKENS = 100
AT_A_TIME = 10
RSS_GROWTH = 20 * 2**20
GONE_SECONDS = 1.0


async def dies(made: Bench, name: str) -> None:
    """The engine's process ends at the next request it is sent."""
    await made.fakes[name].faults(die_after=0, exit=True)
    await asyncio.wait_for(made.fakes[name].process.wait(), 30)


@pytest.mark.slow
async def test_row_5_an_engine_that_dies_before_its_first_byte_costs_no_client_an_error(tmp_path: Path) -> None:
    async with bench(tmp_path, engines=2) as made:
        await made.healthy("fake-0", "fake-1")
        for fake in made.fakes.values():
            await fake.faults(token_ms=2)
        # Whole answers begin when they end: whatever is in hand as the engine dies is before its first byte.
        async with under_load(asks(made, "say:" + "x" * 20), users=12) as load:
            for round_ in range(DEATHS):
                name = f"fake-{round_ % 2}"
                await load.more(12)
                await dies(made, name)
                await load.more(12)
                await made.fakes[name].again()
                await made.fakes[name].faults(token_ms=2)
                await made.healthy("fake-0", "fake-1")
        measured("%d deaths, %s, retries %s", DEATHS, load.statuses, await made.metric("ratchet_retries_total", reason="failed"))
        assert set(load.statuses) == {200}
        assert await made.metric("ratchet_retries_total", reason="failed") >= DEATHS


@pytest.mark.slow
async def test_row_6_an_engine_that_dies_mid_stream_ends_it_in_an_error_and_it_is_never_learned_from(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        rng, ids = random.Random(6), []
        for _ in range(BREAKS):
            at = rng.randrange(1, TOKENS)
            await made.fakes["fake-0"].faults(die_after=at)
            answer = await made.chat("say:" + "x" * TOKENS, stream=True)
            *chunks, last = events(answer.text)
            assert json.loads(last)["error"]["code"] == "engine_broken"
            assert "[DONE]" not in answer.text
            ids.append((json.loads(chunks[0])["id"], at))
        for public_id, at in ids:
            kept = await recorded(made, public_id)
            assert (kept.status, kept.untrainable) == ("truncated", "truncated")
            assert kept.choices[0].message["content"] == "x" * at
        with pytest.raises(openai.APIError):
            async for _ in await made.sdk().chat.completions.create(
                model=POLICY, messages=[{"role": "user", "content": "say:" + "x" * TOKENS}], stream=True
            ):
                pass

        async def counted() -> bool:  # nobody waits for the record of a broken answer
            return await made.metric("ratchet_recorded_total", status="truncated") == BREAKS + 1

        await until(counted, "every broken answer is counted")
        assert await made.metric("ratchet_inflight") == 0
        measured("%d of %d broken streams ended in an error", len(ids), BREAKS)


@pytest.mark.slow
async def test_row_7_an_engine_that_restarts_without_its_adapters_answers_nothing_under_their_name(tmp_path: Path) -> None:
    async with bench(tmp_path, engines=2) as made:
        await made.healthy("fake-0", "fake-1")
        name = await made.publish(1)
        async with under_load(lambda i: made.chat(f"question {i % 20}"), users=4) as load:
            for round_ in range(RESTARTS):
                restarted = f"fake-{round_ % 2}"
                await made.fakes[restarted].again()
                await load.more(10, restarted)  # only once it is reconciled
        assert set(load.statuses) == {200}
        assert [answer for answer in load.answers if not told_by(name, answer)] == []
        measured("%d restarts, %d answers, none under a wrong header", RESTARTS, len(load.answers))


def told_by(name: str, answer: httpx.Response) -> bool:
    """Whether header, body and what the weights say are all of the same version."""
    body = answer.json()
    request = json.loads(answer.request.content)
    drawn = model.answer(name, model.prompt_ids(request["messages"]), 0, 0, tokens=1024, endless=False, text=None)
    said = bytes(token for token in drawn if token < model.END).decode(errors="replace")
    return (answer.headers["x-ratchet-policy"], body["model"], body["choices"][0]["message"]["content"]) == (name, name, said)


@pytest.mark.slow
async def test_row_8_a_client_that_leaves_stops_the_engine_and_what_it_saw_is_recorded(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        assert made.process is not None
        gateway, spans = psutil.Process(made.process.pid), []
        await asyncio.gather(*(made.chat("say:" + "x" * TOKENS, stream=True) for _ in range(AT_A_TIME)))
        rss = gateway.memory_info().rss
        for percent in (1, 50, 99):
            # The engine says so much and then waits: it cannot end by itself before the client has left.
            await made.fakes["fake-0"].faults(hang_after=percent)
            for _ in range(0, LEAVERS, AT_A_TIME):
                ids = await asyncio.gather(*(leaves(made, percent) for _ in range(AT_A_TIME)))
                left = asyncio.get_running_loop().time()
                await until(lambda: idle(made), "the engine is idle")
                spans.append(asyncio.get_running_loop().time() - left)
                for public_id in ids:
                    kept = await recorded(made, public_id)
                    assert (kept.status, kept.untrainable) == ("cancelled", "cancelled")
                    assert kept.choices[0].message["content"] == "x" * percent
        assert (await made.fakes["fake-0"].state())["aborted"] == 3 * LEAVERS
        assert max(spans) <= GONE_SECONDS
        assert await made.metric("ratchet_inflight") == 0
        assert (await made.engine("fake-0"))["inflight"] == (await made.engine("fake-0"))["tokens"] == 0
        grown = gateway.memory_info().rss - rss
        assert grown < RSS_GROWTH
        measured("%d clients left, engine idle after %.3f s at most, RSS grew %d KiB", 3 * LEAVERS, max(spans), grown // 1024)


async def idle(made: Bench) -> bool:
    return bool((await made.fakes["fake-0"].state())["running"] == 0)


async def leaves(made: Bench, tokens: int) -> str:
    """A client that reads so many tokens and closes its connection; the answer's id."""
    body = {"model": POLICY, "messages": [{"role": "user", "content": "say:" + "x" * TOKENS}], "stream": True}
    async with (
        httpx.AsyncClient(timeout=30) as client,
        client.stream("POST", made.url + "/v1/chat/completions", json=body, headers={"authorization": "Bearer rk-client"}) as answer,
    ):
        lines, public_id, seen = answer.aiter_lines(), "", 0
        while seen < tokens:
            line = await anext(lines)
            if line.startswith("data: "):
                chunk = json.loads(line[6:])
                public_id = chunk["id"]
                seen += len(chunk["choices"][0]["delta"].get("content") or "")
    return public_id
