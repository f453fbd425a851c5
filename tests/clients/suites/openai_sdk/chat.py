"""The `openai` package: chat completions, whole, streamed and asynchronous."""

import json

import openai
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather at a place",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}, "days": {"type": "integer"}}, "required": ["place"]},
    },
}


class Plan(BaseModel):
    title: str
    steps: list[str]
    hours: int


class GetWeather(BaseModel):
    place: str
    days: int


def asked(text: str) -> list[dict]:
    return [{"role": "system", "content": "You are helpful."}, {"role": "user", "content": text}]


def test_a_whole_answer_has_id_usage_and_text(model: str) -> None:
    answer = OpenAI().chat.completions.create(model=model, messages=asked("say:naïve 🙂"), max_tokens=40)
    assert answer.id.startswith("chatcmpl-")
    assert answer.object == "chat.completion"
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("naïve 🙂", "stop")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer._request_id
    assert "token_ids" not in answer.model_dump_json()


def test_a_stream_gives_the_same_text_and_usage_only_when_it_is_asked_for(model: str) -> None:
    client = OpenAI()
    whole = client.chat.completions.create(model=model, messages=asked("tell me"), seed=7)
    chunks = list(client.chat.completions.create(model=model, messages=asked("tell me"), seed=7, stream=True))
    assert "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices) == whole.choices[0].message.content
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert not any(chunk.usage for chunk in chunks)
    options = {"include_usage": True}
    counted = list(client.chat.completions.create(model=model, messages=asked("tell me"), seed=7, stream=True, stream_options=options))
    assert counted[-1].choices == []
    assert counted[-1].usage == whole.usage


async def test_the_asynchronous_client_streams(model: str) -> None:
    async with AsyncOpenAI() as client:
        stream = await client.chat.completions.create(model=model, messages=asked("say:one two"), stream=True)
        said = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(said) == "one two"


def test_the_streaming_helper_gathers_events_into_a_completion(model: str) -> None:
    with OpenAI().chat.completions.stream(model=model, messages=asked("say:hello there")) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= set(kinds)
    assert final.choices[0].message.content == "hello there"


async def test_the_asynchronous_helper_gathers_too(model: str) -> None:
    async with AsyncOpenAI() as client, client.chat.completions.stream(model=model, messages=asked("say:hi")) as stream:
        deltas = [event.delta async for event in stream if event.type == "content.delta"]
    assert "".join(deltas) == "hi"


def test_structured_outputs_are_parsed_into_the_class(model: str) -> None:
    answer = OpenAI().chat.completions.parse(model=model, messages=asked("Plan 'a trip' of 3 hours"), response_format=Plan)
    assert answer.choices[0].message.parsed == Plan(title="a trip", steps=["a trip"], hours=3)


def test_a_streamed_structured_output_is_parsed_at_its_end(model: str) -> None:
    with OpenAI().chat.completions.stream(model=model, messages=asked("Plan 'a trip' of 3 hours"), response_format=Plan) as stream:
        assert stream.get_final_completion().choices[0].message.parsed.hours == 3


def test_json_mode_gives_an_object(model: str) -> None:
    kind = {"type": "json_object"}
    answer = OpenAI().chat.completions.create(model=model, messages=asked("JSON with 'who' and 'why'"), response_format=kind)
    assert set(json.loads(answer.choices[0].message.content)) == {"who", "why"}


def test_a_tool_is_called_and_its_result_is_taken(model: str) -> None:
    client = OpenAI()
    messages = asked("What is the weather in 'Oslo' for 2 days?")
    first = client.chat.completions.create(model=model, messages=messages, tools=[WEATHER])
    call = first.choices[0].message.tool_calls[0]
    assert (first.choices[0].finish_reason, call.function.name) == ("tool_calls", "get_weather")
    assert json.loads(call.function.arguments) == {"place": "Oslo", "days": 2}
    messages += [first.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    second = client.chat.completions.create(model=model, messages=messages, tools=[WEATHER])
    assert second.choices[0].message.content
    assert not second.choices[0].message.tool_calls


def test_a_streamed_tool_call_is_put_together_and_parsed(model: str) -> None:
    tool = openai.pydantic_function_tool(GetWeather, name="get_weather")
    messages = asked("What is the weather in 'Oslo' for 2 days?")
    with OpenAI().chat.completions.stream(model=model, messages=messages, tools=[tool]) as stream:
        kinds = {event.type for event in stream}
        call = stream.get_final_completion().choices[0].message.tool_calls[0]
    assert {"tool_calls.function.arguments.delta", "tool_calls.function.arguments.done"} <= kinds
    assert call.function.parsed_arguments == GetWeather(place="Oslo", days=2)


def test_a_forced_tool_is_the_one_called(model: str) -> None:
    choice = {"type": "function", "function": {"name": "get_weather"}}
    answer = OpenAI().chat.completions.create(model=model, messages=asked("Hello!"), tools=[WEATHER], tool_choice=choice)
    assert answer.choices[0].message.tool_calls[0].function.name == "get_weather"


def test_logprobs_come_as_many_as_asked_for(model: str) -> None:
    answer = OpenAI().chat.completions.create(model=model, messages=asked("say:abc"), logprobs=True, top_logprobs=3)
    told = answer.choices[0].logprobs.content
    assert len(told) == answer.usage.completion_tokens
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 3 for token in told)
    assert "".join(token.token for token in told[:3]) == "abc"


def test_n_choices_come_whole_and_streamed(model: str) -> None:
    client = OpenAI()
    whole = client.chat.completions.create(model=model, messages=asked("tell me"), n=3, seed=1)
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    said = {0: "", 1: "", 2: ""}
    for chunk in client.chat.completions.create(model=model, messages=asked("tell me"), n=3, seed=1, stream=True):
        for choice in chunk.choices:
            said[choice.index] += choice.delta.content or ""
    assert list(said.values()) == [choice.message.content for choice in whole.choices]


def test_stop_ends_the_answer_before_the_words(model: str) -> None:
    answer = OpenAI().chat.completions.create(model=model, messages=asked("say:one two three"), stop=["two"])
    assert answer.choices[0].message.content == "one "
