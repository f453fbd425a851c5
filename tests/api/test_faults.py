"""What a client sees when an engine, the store or the client itself goes away."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from ratchet.types import Interaction
from tests.gateways import POLICY, Bench, bench, until

LONG = "say:" + "x" * 200


def events(text: str) -> list[str]:
    return [line.removeprefix("data: ") for line in text.split("\n\n") if line]


async def recorded(made: Bench, public_id: str) -> Interaction:
    async def look() -> Interaction | None:
        return await made.store.interactions.get(public_id, None)

    found = await until(look, f"{public_id} is recorded")
    assert isinstance(found, Interaction)
    return found


async def idle(made: Bench, name: str = "fake-0") -> dict[str, Any]:
    """What the fake has seen, once it has nothing in hand."""

    async def look() -> dict[str, Any] | None:
        seen = await made.fakes[name].seen()
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


async def test_an_engine_that_dies_mid_stream_ends_it_in_an_error_and_it_is_never_learned_from(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.fakes["fake-0"].faults(die_after=4)
        for _ in range(5):
            answer = await made.chat(LONG, stream=True)
            *chunks, last = events(answer.text)
            assert json.loads(last)["error"]["code"] == "engine_broken"
            assert "[DONE]" not in answer.text
            kept = await recorded(made, json.loads(chunks[0])["id"])
            assert (kept.status, kept.untrainable) == ("truncated", "truncated")
            assert kept.choices[0].message["content"] == "xxxx"
        with pytest.raises(openai.APIError):
            async for _ in await made.sdk().chat.completions.create(
                model=POLICY, messages=[{"role": "user", "content": LONG}], stream=True
            ):
                pass

        async def all_counted() -> bool:  # nobody waits for the record of a broken answer
            return await made.metric("ratchet_recorded_total", status="truncated") == 6

        await until(all_counted, "six truncated answers are counted")
        assert await made.metric("ratchet_inflight") == 0


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


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_away_cancels_the_engine_within_a_second(tmp_path: Path, stream: bool) -> None:
    async with bench(tmp_path) as made:
        fake = made.fakes["fake-0"]
        await fake.faults(token_ms=20)
        clock, ids = asyncio.get_running_loop().time, []
        for _ in range(3):
            async with httpx.AsyncClient() as client:
                body = {"model": POLICY, "messages": [{"role": "user", "content": LONG}], "stream": stream}
                request = client.build_request(
                    "POST", made.url + "/v1/chat/completions", json=body, headers={"authorization": "Bearer rk-client"}
                )
                if stream:
                    answer = await client.send(request, stream=True)
                    lines = answer.aiter_lines()
                    ids.append(json.loads((await anext(lines))[6:])["id"])
                    await answer.aclose()
                else:
                    sending = asyncio.create_task(client.send(request))

                    async def busy() -> bool:
                        return bool((await fake.seen())["running"])

                    await until(busy, "the engine works")
                    sending.cancel()
                    await asyncio.gather(sending, return_exceptions=True)
            left = clock()
            await idle(made)
            assert clock() - left < 1
        assert (await fake.seen())["aborted"] == 3
        for public_id in ids:
            kept = await recorded(made, public_id)
            assert (kept.status, kept.untrainable) == ("cancelled", "cancelled")
            assert len(kept.choices[0].message["content"] or "") < 200
        assert await made.metric("ratchet_inflight") == 0


async def test_without_the_store_no_answer_claims_to_be_complete_and_feedback_is_503(tmp_path: Path) -> None:
    async with bench(tmp_path, record_seconds=0.5) as made:
        assert (await made.chat()).status_code == 200
        await made.server.stop()
        stream = await made.chat(stream=True)
        assert stream.status_code == 200
        assert "[DONE]" not in stream.text
        assert json.loads(events(stream.text)[-1])["error"]["code"] == "not_recorded"
        whole = await made.chat()
        feedback = await made.call("POST", "/v1/feedback", {"target": "ep-1", "value": 0.5})
        stored = await made.call("GET", "/v1/chat/completions")
        for answer in (whole, feedback, stored):
            assert answer.status_code == 503
            assert "retry-after" in answer.headers
        assert (await made.chat(store=False)).status_code == 200
        assert (await made.call("GET", "/readyz", key=None)).status_code == 200
        unknown = await made.call("GET", "/v1/models", key="never-seen")
        assert unknown.status_code == 503


async def test_a_store_that_comes_back_in_time_loses_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path, record_seconds=20) as made:
        made.server.process.send_signal(signal.SIGSTOP)
        asking = asyncio.create_task(made.chat(stream=True))
        await idle(made)
        assert not asking.done()
        made.server.process.send_signal(signal.SIGCONT)
        answer = await asking
        assert answer.text.endswith("data: [DONE]\n\n")
        assert await made.store.interactions.get(json.loads(events(answer.text)[0])["id"], "acme") is not None


async def test_requests_past_the_limit_in_flight_are_429(tmp_path: Path) -> None:
    async with bench(tmp_path, limits={"max_inflight": 2}) as made:
        await made.fakes["fake-0"].faults(token_ms=20)
        answers = await asyncio.gather(*(made.chat("say:" + "x" * 20) for _ in range(6)))
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(refused) == 4
        assert all("retry-after" in answer.headers for answer in refused)
