"""The `anthropic` package over POST /v1/messages."""

import os

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic

HELLO = [{"role": "user", "content": "say:naïve 🙂"}]
WEATHER = {
    "name": "get_weather",
    "description": "The weather at a place",
    "input_schema": {"type": "object", "properties": {"place": {"type": "string"}, "days": {"type": "integer"}}, "required": ["place"]},
}
OSLO = {"role": "user", "content": "What is the weather in 'Oslo' for 2 days?"}
SETTINGS = {"base_url": os.environ["OPENAI_BASE_URL"].removesuffix("/v1"), "api_key": os.environ["OPENAI_API_KEY"], "max_retries": 0}


def test_a_message_is_answered_with_text_and_usage(model: str) -> None:
    answer = Anthropic(**SETTINGS).messages.create(model=model, max_tokens=40, system="Be kind.", messages=HELLO)
    assert answer.id.startswith("msg_")
    assert (answer.type, answer.role, answer.content[0].text, answer.stop_reason) == ("message", "assistant", "naïve 🙂", "end_turn")
    assert answer.usage.input_tokens > 0 < answer.usage.output_tokens


def test_the_streaming_helper_gathers_the_message(model: str) -> None:
    with Anthropic(**SETTINGS).messages.stream(model=model, max_tokens=40, messages=HELLO) as stream:
        said = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert said == final.content[0].text == "naïve 🙂"
    assert (final.id[:4], final.stop_reason) == ("msg_", "end_turn")


async def test_the_asynchronous_client_streams_events(model: str) -> None:
    async with AsyncAnthropic(**SETTINGS) as client:
        stream = await client.messages.create(model=model, max_tokens=3, messages=HELLO, stream=True)
        events = [event async for event in stream]
    assert [event.type for event in (events[0], events[-1])] == ["message_start", "message_stop"]
    assert next(event for event in events if event.type == "message_delta").delta.stop_reason == "max_tokens"


def test_a_tool_is_used_and_its_result_taken(model: str) -> None:
    client = Anthropic(**SETTINGS)
    first = client.messages.create(model=model, max_tokens=500, messages=[OSLO], tools=[WEATHER])
    use = first.content[0]
    assert (use.type, use.name, use.input, first.stop_reason) == ("tool_use", "get_weather", {"place": "Oslo", "days": 2}, "tool_use")
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "sunny"}]}
    turns = [OSLO, {"role": "assistant", "content": first.content}, result]
    second = client.messages.create(model=model, max_tokens=500, messages=turns, tools=[WEATHER])
    assert second.content[0].type == "text"


def test_a_streamed_tool_use_is_put_together(model: str) -> None:
    choice = {"type": "tool", "name": "get_weather"}
    with Anthropic(**SETTINGS).messages.stream(model=model, max_tokens=500, messages=[OSLO], tools=[WEATHER], tool_choice=choice) as stream:
        final = stream.get_final_message()
    assert final.content[0].input == {"place": "Oslo", "days": 2}


@pytest.mark.parametrize(
    ("options", "fields", "error"),
    [
        ({"api_key": "wrong"}, {}, anthropic.AuthenticationError),
        ({"api_key": os.environ["KEY_FEEDBACK"]}, {}, anthropic.PermissionDeniedError),
        ({}, {"model": "nobody"}, anthropic.NotFoundError),
        ({}, {"extra_body": {"temperature": 3}}, anthropic.BadRequestError),
    ],
)
def test_each_refusal_is_the_exception_its_users_catch(model: str, options: dict, fields: dict, error: type[Exception]) -> None:
    asked = {"model": model, "max_tokens": 40, "messages": HELLO, **fields}
    with pytest.raises(error) as caught:
        Anthropic(**{**SETTINGS, **options}).messages.create(**asked)
    assert caught.value.body["error"]["message"]
