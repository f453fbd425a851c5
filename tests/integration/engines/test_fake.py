from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from engines import Wants, sse
from engines.fake import model
from engines.fake.__main__ import arguments
from engines.fake.faults import Faults
from engines.vllm.capture import ChoicesCapture, capture_whole
from engines.vllm.control import VllmControl
from ratchet.errors import EngineRefused, EngineUnavailable
from tests.support.fake_engine import BASE, bare_adapter, fake_engine, until

ID = "chatcmpl-" + "0f" * 16


def body(text: str = "hello", **fields: Any) -> dict[str, Any]:
    return {"model": BASE, "messages": [{"role": "user", "content": text}], "return_token_ids": True, "logprobs": True, **fields}


async def chat(url: str, **fields: Any) -> bytes:
    async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/chat/completions", json=body(**fields)) as answer:
        return await answer.read()


async def test_the_same_request_gets_the_same_answer() -> None:
    async with fake_engine() as (_, record):
        one, two = [json.loads(await chat(record.url, n=2))["choices"] for _ in range(2)]
    assert one == two
    assert one[0]["message"] != one[1]["message"]


async def test_choices_differ_only_above_temperature_zero() -> None:
    async with fake_engine() as (_, record):
        choices = json.loads(await chat(record.url, n=2, temperature=0))["choices"]
    assert choices[0]["message"] == choices[1]["message"]


async def test_ids_are_the_texts_bytes_and_the_end() -> None:
    async with fake_engine() as (_, record):
        choice = json.loads(await chat(record.url, text="say:naïve 🙂"))["choices"][0]
    assert choice["message"]["content"] == "naïve 🙂"
    assert choice["token_ids"] == [*"naïve 🙂".encode(), model.END]


async def test_a_stop_string_ends_the_answer_before_it() -> None:
    async with fake_engine() as (_, record):
        choice = json.loads(await chat(record.url, text="say:one two three", stop=["two"]))["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"], choice["stop_reason"]) == ("one ", "stop", "two")


async def test_an_endless_answer_fills_its_limit() -> None:
    async with fake_engine() as (_, record):
        choice = json.loads(await chat(record.url, max_tokens=300, ignore_eos=True))["choices"][0]
    assert (len(choice["token_ids"]), choice["finish_reason"]) == (300, "length")


async def test_a_message_of_parts_is_read_as_its_text() -> None:
    parts = [{"type": "text", "text": "say:"}, {"type": "text", "text": "yes"}]
    assert model.prompt_ids([{"role": "user", "content": parts}]) == model.prompt_ids([{"role": "user", "content": "say:yes"}])


async def test_nothing_is_given_that_was_not_asked_for() -> None:
    async with fake_engine() as (_, record):
        answer = json.loads(await chat(record.url, return_token_ids=False, logprobs=False))
    assert answer["choices"][0]["token_ids"] is None
    assert answer["choices"][0]["logprobs"] is None
    assert answer["prompt_token_ids"] is None


@pytest.mark.parametrize(
    ("fields", "status"),
    [({"model": "nobody"}, 404), ({"n": 0}, 400), ({"n": 129}, 400), ({"messages": "x"}, 400), ({"max_tokens": -1}, 400)],
)
async def test_a_request_it_cannot_serve_is_refused_as_vllm_does(fields: dict[str, Any], status: int) -> None:
    async with fake_engine() as (_, record):
        error = json.loads(await chat(record.url, **fields))["error"]
    assert error["code"] == status


async def test_it_can_die_before_the_first_byte_a_number_of_times() -> None:
    async with fake_engine(Faults(die_after=0, times=1)) as (_, record):
        with pytest.raises(aiohttp.ClientError):
            await chat(record.url, stream=True)
        assert b"[DONE]" in await chat(record.url, stream=True)


async def test_it_can_die_in_the_middle_of_a_stream() -> None:
    async with fake_engine(Faults(die_after=3)) as (_, record), aiohttp.ClientSession() as session:
        received = b""
        async with session.post(f"{record.url}/v1/chat/completions", json=body(stream=True)) as answer:
            with pytest.raises(aiohttp.ClientPayloadError):
                async for piece in answer.content.iter_any():
                    received += piece
    events, _ = sse.split(received)
    assert len(events) <= 4
    assert sse.DONE not in events


async def test_it_can_refuse() -> None:
    async with fake_engine(Faults(refuse=503)) as (_, record):
        engine = VllmControl(record)
        with pytest.raises(EngineRefused) as caught:
            await engine.generate(BASE, [1], max_tokens=1)
        await engine.close()
    assert caught.value.status == 503


async def test_it_can_hang_and_notices_that_the_client_left() -> None:
    async with fake_engine(Faults(hang_after=2)) as (engine, record), aiohttp.ClientSession() as session:
        answer = await session.post(f"{record.url}/v1/chat/completions", json=body(stream=True))
        await answer.content.readuntil(b"\n\n")
        assert engine.running == 1
        answer.close()

        async def aborted() -> bool:
            return engine.aborted == 1 and engine.running == 0

        await until(aborted, seconds=5)


async def test_faults_can_be_set_while_it_runs() -> None:
    async with fake_engine() as (_, record), aiohttp.ClientSession() as session:
        async with session.post(f"{record.url}/fake/faults", json={"refuse": 500, "times": 1}) as answer:
            assert answer.status == 200
        assert json.loads(await chat(record.url))["error"]["code"] == 500
        assert "choices" in json.loads(await chat(record.url))


async def test_it_tells_what_it_was_asked() -> None:
    async with fake_engine() as (_, record), aiohttp.ClientSession() as session:
        await chat(record.url, text="remember me")
        async with session.get(f"{record.url}/fake/state") as answer:
            seen = await answer.json()
    assert seen["requests"][0]["messages"][0]["content"] == "remember me"


async def test_more_requests_than_slots_wait() -> None:
    async with fake_engine(Faults(hang_after=0, times=1), slots=1) as (engine, record):
        tasks = [asyncio.create_task(chat(record.url)) for _ in range(2)]
        client = VllmControl(record)

        async def one_waits() -> bool:
            load = await client.metrics()
            return (load.running, load.waiting, load.slots) == (1, 1, 1)

        await until(one_waits, seconds=5)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await client.close()
        assert engine.plan.faults.times == 1


async def test_a_restart_loses_its_adapters(tmp_path: Path) -> None:
    async with fake_engine() as (_, record), aiohttp.ClientSession() as session:
        client = VllmControl(record)
        await client.load("support@1", bare_adapter(tmp_path / "a"))
        assert await client.models() == [BASE, "support@1"]
        async with session.post(f"{record.url}/fake/forget"):
            pass
        assert await client.models() == [BASE]
        await client.close()


async def test_a_hung_engine_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.openai.proof.SECONDS", 0.1)
    async with fake_engine(Faults(hang_after=0)) as (_, record):
        client = VllmControl(record)
        with pytest.raises(EngineUnavailable):
            await client.health()
        await client.close()


async def test_every_answer_of_it_is_exact() -> None:
    async with fake_engine() as (_, record):
        for n in (1, 3):
            _, whole = capture_whole(await chat(record.url, n=n), Wants(), ID, BASE)
            capture = ChoicesCapture(Wants(), ID, BASE)
            events, _ = sse.split(await chat(record.url, n=n, stream=True, stream_options={"include_usage": True}))
            for event in events:
                capture.event(event)
            assert whole.exact
            assert capture.captured().exact
            assert [c.token_ids for c in capture.captured().choices] == [c.token_ids for c in whole.choices]


def test_its_flags_name_its_faults() -> None:
    options = arguments(["--token-ms", "2", "--die-after", "3", "--hang-after", "4", "--refuse", "503", "--exit", "--times", "1"])
    assert (options.token_ms, options.die_after, options.hang_after, options.refuse, options.exit, options.times) == (
        2.0,
        3,
        4,
        503,
        True,
        1,
    )


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"properties": {"place": {"type": "string"}, "days": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "integer"}}},
    },
}


async def test_a_tool_is_called_whole_and_streamed_alike() -> None:
    async with fake_engine() as (_, record):
        whole = json.loads(await chat(record.url, text="the weather in 'Åre' for 2 days?", tools=[WEATHER]))
        stream = await chat(
            record.url, text="the weather in 'Åre' for 2 days?", tools=[WEATHER], stream=True, stream_options={"include_usage": True}
        )
    called, captured = whole["choices"][0], ChoicesCapture(Wants(False, False, False), ID, BASE)
    for event in sse.split(stream)[0]:
        captured.event(event)
    answer = captured.captured()
    assert called["finish_reason"] == answer.choices[0].finish_reason == "tool_calls"
    assert json.loads(called["message"]["tool_calls"][0]["function"]["arguments"]) == {"place": "Åre", "days": 2}
    assert answer.choices[0].message["tool_calls"] == called["message"]["tool_calls"]
    assert answer.choices[0].token_ids == called["token_ids"]
    assert answer.exact


@pytest.mark.parametrize(
    ("choice", "called"),
    [("auto", False), ("none", False), ("required", True), ({"type": "function", "function": {"name": "get_weather"}}, True)],
)
async def test_a_tool_is_called_where_it_has_to_be(choice: Any, called: bool) -> None:
    async with fake_engine() as (_, record):
        answer = json.loads(await chat(record.url, text="hello", tools=[WEATHER], tool_choice=choice))
    assert ("tool_calls" in answer["choices"][0]["message"]) == called


async def test_a_schema_is_filled_and_one_that_is_none_refused() -> None:
    schema = {
        "properties": {
            "kind": {"enum": ["a", "b"]},
            "list": {"type": "array", "items": {"type": ["number", "null"]}},
            "self": {"$ref": "#"},
        }
    }
    async with fake_engine() as (_, record):
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        content = json.loads(json.loads(await chat(record.url, text="2.5", response_format=form))["choices"][0]["message"]["content"])
        refused = json.loads(await chat(record.url, response_format={**form, "json_schema": {"schema": {"properties": [1]}}}))
    assert (content["kind"], content["list"], content["self"]["kind"]) == ("a", [2.0], "a")
    assert refused["error"]["code"] == 400


async def test_as_many_of_the_likeliest_tokens_are_told_as_asked_for() -> None:
    async with fake_engine() as (_, record):
        tokens = json.loads(await chat(record.url, top_logprobs=3))["choices"][0]["logprobs"]["content"]
    assert all(len(token["top_logprobs"]) == 3 and token["top_logprobs"][0]["token"] == token["token"] for token in tokens)
