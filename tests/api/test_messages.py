"""`POST /v1/messages` over real HTTP, in Anthropic's raw form."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.gateway_process import POLICY, Bench
from tests.support.generating_routes import payloads

pytestmark = pytest.mark.asyncio(loop_scope="session")
HELLO = [{"role": "user", "content": "say:hello"}]
WEATHER = {"name": "get_weather", "input_schema": {"type": "object", "properties": {"place": {"type": "string"}}}}
OSLO = {"role": "user", "content": "the weather in 'Oslo'?"}


async def send(made: Bench, **fields: Any) -> Any:
    body = {"model": POLICY, "messages": HELLO, "max_tokens": 500, **fields}
    headers = {"x-api-key": "rk-client", "anthropic-version": "2023-06-01"}
    return await made.call("POST", "/v1/messages", body, key=None, headers=headers)


async def test_a_message_has_anthropics_form(shared: Bench) -> None:
    tree = (await send(shared, system="be brief", stop_sequences=["lo"])).json()
    assert (tree["type"], tree["role"], tree["content"], tree["model"]) == (
        "message",
        "assistant",
        [{"type": "text", "text": "hel"}],
        f"{POLICY}@0",
    )
    assert (tree["stop_reason"], tree["stop_sequence"]) == ("stop_sequence", "lo")
    assert tree["usage"]["input_tokens"] > tree["usage"]["output_tokens"] > 0


async def test_a_streams_events_are_named_and_in_anthropics_order(shared: Bench) -> None:
    text = (await send(shared, stream=True)).text
    names = [line.removeprefix("event: ") for line in text.split("\n") if line.startswith("event: ")]
    assert names == [json.loads(payload)["type"] for payload in payloads(text)]
    assert names[:2] == ["message_start", "content_block_start"]
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(names[2:-3]) == {"content_block_delta"}
    assert json.loads(payloads(text)[0])["message"]["model"] == f"{POLICY}@0"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_tool_use_is_recorded_as_a_chats_call(shared: Bench, stream: bool) -> None:
    answer = await send(shared, messages=[OSLO], tools=[WEATHER], stream=stream)
    public_id = json.loads(payloads(answer.text)[0])["message"]["id"] if stream else answer.json()["id"]
    kept = await shared.store.interactions.get(public_id, "acme")
    assert kept is not None
    [choice] = kept.choices
    assert (choice.finish_reason, choice.message["content"]) == ("tool_calls", None)
    assert choice.message["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": '{"place":"Oslo"}'}


async def test_a_tools_result_is_taken(shared: Bench) -> None:
    use = (await send(shared, messages=[OSLO], tools=[WEATHER])).json()["content"]
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use[0]["id"], "content": "sunny"}]}
    turns = [OSLO, {"role": "assistant", "content": use}, result]
    answer = await send(shared, messages=turns, tools=[WEATHER])
    assert answer.json()["content"][0]["type"] == "text"
    assert (await shared.fakes["fake-0"].state())["requests"][-1]["messages"] == turns


async def test_an_image_is_refused_and_no_engine_sees_it(shared: Bench) -> None:
    before = len((await shared.fakes["fake-0"].state())["requests"])
    image = {"type": "image", "source": {"type": "url", "url": "http://169.254.169.254/"}}
    answer = await send(shared, messages=[{"role": "user", "content": [image]}])
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "messages")
    assert len((await shared.fakes["fake-0"].state())["requests"]) == before
