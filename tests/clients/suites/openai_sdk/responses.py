"""The `openai` package: the responses API, whole, streamed, stored."""

import json
import os

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"place": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["place", "days"],
        "additionalProperties": False,
    },
    "strict": True,
}
OSLO = "What is the weather in 'Oslo' for 2 days?"


class Plan(BaseModel):
    title: str
    hours: int


def test_a_response_is_made_with_text_and_usage(model: str) -> None:
    answer = OpenAI().responses.create(model=model, instructions="Be kind.", input="say:naïve 🙂", max_output_tokens=40)
    assert answer.id.startswith("resp_")
    assert (answer.output_text, answer.status) == ("naïve 🙂", "completed")
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens


def test_its_events_add_up_to_the_response(model: str) -> None:
    events = list(OpenAI().responses.create(model=model, input="say:one two", stream=True))
    kinds = [event.type for event in events]
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "one two"
    assert {events[0].response.id, events[-1].response.id} == {events[0].response.id}
    assert [event.sequence_number for event in events] == list(range(len(events)))


async def test_the_asynchronous_helper_gathers_a_stream(model: str) -> None:
    async with AsyncOpenAI() as client, client.responses.stream(model=model, input="say:hello") as stream:
        kinds = {event.type async for event in stream}
        final = await stream.get_final_response()
    assert {"response.output_text.delta", "response.output_text.done", "response.completed"} <= kinds
    assert final.output_text == "hello"


def test_structured_outputs_are_parsed_whole_and_streamed(model: str) -> None:
    client = OpenAI()
    whole = client.responses.parse(model=model, input="Plan 'a trip' of 3 hours", text_format=Plan)
    assert whole.output_parsed == Plan(title="a trip", hours=3)
    with client.responses.stream(model=model, input="Plan 'a trip' of 3 hours", text_format=Plan) as stream:
        assert stream.get_final_response().output_parsed == Plan(title="a trip", hours=3)


def test_a_function_is_called_and_its_output_goes_on_from_the_response(model: str) -> None:
    client = OpenAI()
    first = client.responses.create(model=model, input=OSLO, tools=[WEATHER])
    call = first.output[0]
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "get_weather", {"place": "Oslo", "days": 2})
    result = [{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}]
    second = client.responses.create(model=model, input=result, previous_response_id=first.id, tools=[WEATHER])
    assert second.output_text
    assert second.previous_response_id == first.id


def test_a_streamed_function_call_is_put_together(model: str) -> None:
    with OpenAI().responses.stream(model=model, input=OSLO, tools=[WEATHER]) as stream:
        kinds = {event.type for event in stream}
        call = stream.get_final_response().output[0]
    assert {"response.function_call_arguments.delta", "response.function_call_arguments.done"} <= kinds
    assert json.loads(call.arguments) == {"place": "Oslo", "days": 2}


def test_what_came_before_is_put_in_front(model: str) -> None:
    client = OpenAI()
    first = client.responses.create(model=model, input="say:first")
    second = client.responses.create(model=model, input="say:second", previous_response_id=first.id)
    assert second.output_text == "second"
    assert second.usage.input_tokens > first.usage.input_tokens
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=model, input="say:x", previous_response_id="resp_" + "0" * 32)
    assert caught.value.code == "previous_response_not_found"


def test_log_probs_come_if_they_are_included(model: str) -> None:
    answer = OpenAI().responses.create(model=model, input="say:abc", include=["message.output_text.logprobs"], top_logprobs=2)
    told = answer.output[0].content[0].logprobs
    assert [token.token for token in told[:3]] == ["a", "b", "c"]
    assert all(len(token.top_logprobs) == 2 for token in told)


def test_a_response_is_read_back_and_deleted_by_its_tenant_alone(model: str) -> None:
    client, other = OpenAI(), OpenAI(api_key=os.environ["KEY_OTHER"])
    made = client.responses.create(model=model, input="say:kept", metadata={"mark": "x"})
    kept = client.responses.retrieve(made.id)
    assert (kept.output_text, kept.metadata) == ("kept", {"mark": "x"})
    for foreign in (other.responses.retrieve, other.responses.delete):
        with pytest.raises(openai.NotFoundError):
            foreign(made.id)
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_what_is_not_offered_is_a_clear_refusal(model: str) -> None:
    for fields in ({"background": True}, {"conversation": "conv_1"}, {"tools": [{"type": "web_search"}]}):
        with pytest.raises(openai.BadRequestError):
            OpenAI().responses.create(model=model, input="x", **fields)
