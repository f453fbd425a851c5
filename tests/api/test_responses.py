"""`/v1/responses` over real HTTP, with the unmodified SDK."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support.gateway_process import POLICY, Bench, bench

pytestmark = pytest.mark.asyncio(loop_scope="session")
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    "strict": False,
}


async def test_the_sdks_stream_ends_in_the_response_that_is_stored(shared: Bench) -> None:
    sdk = shared.sdk()
    async with sdk.responses.stream(model=POLICY, input="say:one two", metadata={"mark": "x"}, instructions="be brief") as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert (kinds[0], kinds[-1], final.output_text, final.model) == ("response.created", "response.completed", "one two", f"{POLICY}@0")
    stored = await sdk.responses.retrieve(final.id)
    assert (stored.id, stored.output_text, stored.metadata, stored.usage) == (final.id, "one two", {"mark": "x"}, final.usage)
    kept = await shared.store.interactions.get(final.id, "acme")
    assert kept is not None
    assert kept.response == json.loads((await shared.call("GET", f"/v1/responses/{final.id}")).text)
    assert kept.request["instructions"] == "be brief"


async def test_an_answer_cut_at_its_limit_is_incomplete_and_says_why(shared: Bench) -> None:
    answer = await shared.sdk().responses.create(model=POLICY, input="say:hello", max_output_tokens=3)
    assert (answer.status, answer.output_text) == ("incomplete", "hel")
    assert answer.incomplete_details is not None and answer.incomplete_details.reason == "max_output_tokens"
    kept = await shared.store.interactions.get(answer.id, "acme")
    assert kept is not None and (kept.status, kept.choices[0].finish_reason) == ("complete", "length")


async def test_a_functions_call_is_recorded_and_goes_on_with_its_output(shared: Bench) -> None:
    sdk = shared.sdk()
    first = await sdk.responses.create(model=POLICY, input="the weather in 'Oslo'?", tools=[WEATHER])
    call = first.output[0]
    assert call.type == "function_call" and json.loads(call.arguments) == {"place": "Oslo"}
    kept = await shared.store.interactions.get(first.id, "acme")
    assert kept is not None and kept.choices[0].finish_reason == "tool_calls"
    assert kept.choices[0].message["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": '{"place":"Oslo"}'}
    result: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "say:sunny"}]
    second = await sdk.responses.create(model=POLICY, input=result, previous_response_id=first.id, tools=[WEATHER])
    assert second.output_text and second.previous_response_id == first.id
    sent = (await shared.fakes["fake-0"].state())["requests"][-1]
    assert [item.get("type", item.get("role")) for item in sent["input"]] == ["user", "function_call", "function_call_output"]
    assert "previous_response_id" not in sent


async def test_a_conversation_goes_on_at_any_replica(tmp_path: Path) -> None:
    async with bench(tmp_path, engines=2, routing={"strategy": "round_robin"}) as made:
        await made.healthy("fake-0", "fake-1")
        last, seen = None, set()
        for i in range(4):
            fields = {"model": POLICY, "input": f"say:{i}", **({"previous_response_id": last} if last else {}), "stream": i == 2}
            answer = await made.call("POST", "/v1/responses", fields)
            assert answer.status_code == 200, answer.text
            last = answer.text.split('"id":"')[1].split('"')[0]
            seen.add(answer.headers["x-ratchet-engine"])
        assert seen == {"fake-0", "fake-1"}
        sent = [body for fake in made.fakes.values() for body in (await fake.state())["requests"] if "input" in body]
        longest = max(sent, key=lambda body: len(body["input"]))["input"]
        told = [item["content"] if isinstance(item["content"], str) else item["content"][0]["text"] for item in longest]
        assert told == ["say:0", "0", "say:1", "1", "say:2", "2", "say:3"]


async def test_a_deleted_response_is_gone_for_reading_and_for_going_on(shared: Bench) -> None:
    sdk = shared.sdk()
    made = await sdk.responses.create(model=POLICY, input="say:gone")
    deleted = await shared.call("DELETE", f"/v1/responses/{made.id}")
    assert deleted.json() == {"id": made.id, "object": "response", "deleted": True}
    with pytest.raises(openai.NotFoundError):
        await sdk.responses.retrieve(made.id)
    assert (await shared.call("DELETE", f"/v1/responses/{made.id}")).status_code == 404
    with pytest.raises(openai.BadRequestError) as error:
        await sdk.responses.create(model=POLICY, input="x", previous_response_id=made.id)
    assert (error.value.code, error.value.param) == ("previous_response_not_found", "previous_response_id")


async def test_what_was_not_stored_cannot_be_gone_on_from(shared: Bench) -> None:
    sdk = shared.sdk()
    made = await sdk.responses.create(model=POLICY, input="say:x", store=False)
    chat = (await shared.chat()).json()["id"]
    foreign = await shared.sdk("other").responses.create(model=POLICY, input="say:theirs")
    for previous in (made.id, chat, foreign.id):
        with pytest.raises(openai.BadRequestError) as error:
            await sdk.responses.create(model=POLICY, input="x", previous_response_id=previous)
        assert error.value.code == "previous_response_not_found"


@pytest.mark.parametrize("fields", [{"background": True}, {"conversation": "conv_1"}, {"prompt": {"id": "p"}}])
async def test_what_is_not_offered_is_a_clear_400(shared: Bench, fields: dict[str, Any]) -> None:
    answer = await shared.call("POST", "/v1/responses", {"model": POLICY, "input": "x", **fields})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_parameter")


@pytest.mark.parametrize("item", ["resp_" + "0" * 32, "x", "..%2f..%2fetc", "chatcmpl-" + "0" * 32])
async def test_a_response_that_never_was_is_404(shared: Bench, item: str) -> None:
    for method in ("GET", "DELETE"):
        answer = await shared.call(method, f"/v1/responses/{item}")
        assert (answer.status_code, answer.json()["error"]["type"]) == (404, "invalid_request_error")
