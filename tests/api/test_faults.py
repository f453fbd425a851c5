"""What a client sees when an engine, the store or the client itself goes away."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import openai
import pytest

from ratchet.buffer import EmbeddedServer
from ratchet.config import StoreConfig
from tests.support.gateway_process import POLICY, Bench, bench, events, recorded, until

LONG = "say:" + "x" * 200


async def idle(made: Bench, name: str = "fake-0") -> dict[str, Any]:
    """What the fake has seen, once it has nothing in hand."""

    async def look() -> dict[str, Any] | None:
        seen = await made.fakes[name].state()
        return seen if seen["running"] == 0 else None

    return dict(await until(look, "the engine is idle"))


async def test_with_every_engine_down_the_answer_is_503_with_retry_after(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.fakes["fake-0"].process.kill()
        await made.fakes["fake-0"].process.wait()
        for stream in (False, True):
            answer = await made.chat(stream=stream)
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"]["code"] == "engine_unavailable"
        assert (await made.call("GET", "/readyz", key=None)).status_code == 503
        assert (await made.call("GET", "/healthz", key=None)).status_code == 200
        with pytest.raises(openai.InternalServerError):
            await made.sdk().chat.completions.create(model=POLICY, messages=[{"role": "user", "content": "hi"}])


async def test_a_replica_that_dies_before_its_first_byte_costs_no_client_an_error(tmp_path: Path) -> None:
    async with bench(tmp_path, engines=2) as made:
        await made.healthy("fake-0", "fake-1")
        await made.fakes["fake-0"].faults(die_after=0)
        answers = await asyncio.gather(*(made.chat(stream=i % 2 == 0) for i in range(20)))
        assert {answer.status_code for answer in answers} == {200}
        assert {answer.headers["x-ratchet-engine"] for answer in answers} == {"fake-1"}
        assert sum(answer.text.endswith("[DONE]\n\n") for answer in answers) == 10


async def test_an_overloaded_replica_is_passed_over_and_alone_is_503(tmp_path: Path) -> None:
    async with bench(tmp_path, engines=2) as made:
        await made.healthy("fake-0", "fake-1")
        await made.fakes["fake-0"].faults(refuse=429)
        assert {(await made.chat()).status_code for _ in range(5)} == {200}
        await made.fakes["fake-1"].faults(refuse=500)
        answer = await made.chat()
        assert answer.status_code == 503
        assert "retry-after" in answer.headers


async def test_an_engine_that_falls_silent_is_given_up_and_told_to_stop(tmp_path: Path) -> None:
    async with bench(tmp_path, idle_seconds=0.5) as made:
        await made.fakes["fake-0"].faults(hang_after=4)
        answer = await made.chat(LONG, stream=True)
        assert json.loads(events(answer.text)[-1])["error"]["code"] == "engine_broken"
        assert (await idle(made))["aborted"] == 1


async def test_an_engine_without_a_first_byte_in_time_is_503(tmp_path: Path) -> None:
    async with bench(tmp_path, first_byte_seconds=0.5) as made:
        await made.fakes["fake-0"].faults(hang_after=0)
        for stream in (False, True):
            assert (await made.chat(stream=stream)).status_code == 503
        await idle(made)


async def test_a_client_that_goes_away_before_its_answer_began_cancels_the_engine_within_a_second(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        fake = made.fakes["fake-0"]
        await fake.faults(hang_after=5)

        async def busy() -> bool:
            return bool((await fake.state())["running"])

        for _ in range(3):
            sending = asyncio.create_task(made.chat(LONG))
            await until(busy, "the engine works")
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            left = asyncio.get_running_loop().time()
            await idle(made)
            assert asyncio.get_running_loop().time() - left < 1
        assert (await fake.state())["aborted"] == 3
        assert await made.store.interactions.count() == 0
        assert await made.metric("ratchet_inflight") == 0


async def test_without_the_store_answers_are_spooled_and_feedback_is_503(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        assert (await made.chat()).status_code == 200
        await made.server.stop()
        stream, whole = await made.chat(stream=True), await made.chat()
        assert stream.text.endswith("data: [DONE]\n\n")
        assert (stream.status_code, whole.status_code) == (200, 200)
        assert "x-ratchet-recorded" not in {*stream.headers, *whole.headers}
        ids = [json.loads(events(stream.text)[0])["id"], whole.json()["id"]]
        rating = {"target": ids[0], "value": 0.5}
        feedback = await made.call("POST", "/v1/feedback", rating)
        stored = await made.call("GET", "/v1/chat/completions")
        for answer in (feedback, stored):
            assert answer.status_code == 503
            assert "retry-after" in answer.headers
        assert (await made.chat(store=False)).status_code == 200
        assert (await made.call("GET", "/readyz", key=None)).status_code == 200
        unknown = await made.call("GET", "/v1/models", key="never-seen")
        assert unknown.status_code == 503
        made.server = await EmbeddedServer.start(tmp_path, StoreConfig())
        for public_id in ids:
            assert (await recorded(made, public_id)).status == "complete"
        assert (await made.call("POST", "/v1/feedback", rating)).status_code == 202


async def test_what_a_gateway_spooled_before_it_was_ended_is_drained_by_the_next(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.chat()
        await made.server.stop()
        answers = [(await made.chat()).json()["id"] for _ in range(3)]
        assert made.process is not None
        made.process.terminate()
        await made.process.communicate()
        assert "answers wait in the spool" in made.log()
        made.server = await EmbeddedServer.start(tmp_path, StoreConfig())
        await made.start()
        for public_id in answers:
            await recorded(made, public_id)
        made.process.terminate()
        await made.process.communicate()
        assert list((tmp_path / "spool").iterdir()) == []


async def test_a_store_that_hangs_delays_no_answer(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.chat()
        made.server.process.send_signal(signal.SIGSTOP)
        clock = asyncio.get_running_loop().time
        answers, longest = [], 0.0
        for _ in range(5):
            begun = clock()
            answers.append(await made.chat(stream=True))
            longest = max(longest, clock() - begun)
        assert longest < 1
        made.server.process.send_signal(signal.SIGCONT)
        for answer in answers:
            assert answer.text.endswith("data: [DONE]\n\n")
            await recorded(made, json.loads(events(answer.text)[0])["id"])
        assert await made.store.interactions.count() == 6


async def test_with_neither_store_nor_spool_answers_say_that_they_are_not_recorded(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("no folder")
    async with bench(tmp_path, record_seconds=0.5) as made:
        assert "x-ratchet-recorded" not in (await made.chat()).headers
        assert await made.metric("ratchet_unrecorded_total") == 0
        await made.server.stop()
        # Begun with the store, which is found missing only now: a whole answer can still say it, a stream must not end as if it were kept.
        caught = await made.chat()
        assert (caught.status_code, caught.headers["x-ratchet-recorded"]) == (200, "false")
        for stream in (True, False):
            told = await made.chat(stream=stream)
            assert (told.status_code, told.headers["x-ratchet-recorded"]) == (200, "false")
            assert not stream or told.text.endswith("data: [DONE]\n\n")
        assert await made.metric("ratchet_unrecorded_total") == 2
        assert (await made.call("POST", "/v1/feedback", {"target": caught.json()["id"], "value": 0.5})).status_code == 503
        made.server = await EmbeddedServer.start(tmp_path, StoreConfig())

        async def promised() -> bool:
            return "x-ratchet-recorded" not in (await made.chat(store=None)).headers

        await until(promised, "answers are recorded again")


async def test_a_store_lost_under_a_stream_that_nothing_else_can_keep_leaves_it_without_done(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("no folder")
    async with bench(tmp_path, record_seconds=0.5) as made:
        await made.chat()
        await made.server.stop()
        stream = await made.chat(stream=True)
        assert (stream.status_code, "[DONE]" in stream.text) == (200, False)
        assert json.loads(events(stream.text)[-1])["error"]["code"] == "not_recorded"


async def test_requests_past_the_limit_in_flight_are_429(tmp_path: Path) -> None:
    async with bench(tmp_path, limits={"max_inflight": 2}) as made:
        await made.fakes["fake-0"].faults(token_ms=20)
        answers = await asyncio.gather(*(made.chat("say:" + "x" * 20) for _ in range(6)))
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(refused) == 4
        assert all("retry-after" in answer.headers for answer in refused)
