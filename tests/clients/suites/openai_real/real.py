"""The `openai` package on a real small model: every route and form once. What it says is nobody's to foresee; the shapes are."""

import json

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

ASKED = [{"role": "user", "content": "Name one fruit."}]
PARAMETERS = {
    "type": "object",
    "properties": {"place": {"type": "string", "enum": ["Oslo", "Rome"]}},
    "required": ["place"],
    "additionalProperties": False,
}


class Pet(BaseModel):
    tame: bool


@pytest.fixture
def client() -> OpenAI:
    return OpenAI(max_retries=0, timeout=200)


def test_a_chat_is_answered_streamed_and_counted(client: OpenAI, model: str) -> None:
    whole = client.chat.completions.create(model=model, messages=ASKED, max_tokens=12, temperature=0)
    options = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(model=model, messages=ASKED, max_tokens=12, temperature=0, stream=True, stream_options=options)
    )
    assert "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices) == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert "token_ids" not in whole.model_dump_json(exclude_none=True)


def test_n_choices_come_with_their_log_probs(client: OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=ASKED, max_tokens=6, n=2, logprobs=True, top_logprobs=2, seed=1)
    assert [choice.index for choice in answer.choices] == [0, 1]
    told = [choice.logprobs.content for choice in answer.choices]
    assert sum(map(len, told)) == answer.usage.completion_tokens
    assert all(len(token.top_logprobs) >= 2 for choice in told for token in choice)


def test_structured_outputs_are_parsed(client: OpenAI, model: str) -> None:
    answer = client.chat.completions.parse(model=model, messages=ASKED, response_format=Pet, max_tokens=60, temperature=0)
    assert isinstance(answer.choices[0].message.parsed, Pet)


def test_a_forced_tool_is_called_with_arguments_of_its_schema(client: OpenAI, model: str) -> None:
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS, "strict": True}}
    choice = {"type": "function", "function": {"name": "get_weather"}}
    answer = client.chat.completions.create(model=model, messages=ASKED, tools=[tool], tool_choice=choice, max_tokens=60, temperature=0)
    call = answer.choices[0].message.tool_calls[0].function
    assert (call.name, json.loads(call.arguments)["place"] in ("Oslo", "Rome")) == ("get_weather", True)


def test_a_prompt_is_completed(client: OpenAI, model: str) -> None:
    answer = client.completions.create(model=model, prompt=["One, two,", "A, B,"], max_tokens=4, logprobs=1, temperature=0)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert all(len(choice.logprobs.tokens) == 4 for choice in answer.choices)
    chunks = list(client.completions.create(model=model, prompt="One, two,", max_tokens=4, temperature=0, stream=True))
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == answer.choices[0].text


def test_responses_go_on_from_one_another(client: OpenAI, model: str) -> None:
    first = client.responses.create(model=model, input="Name one fruit.", max_output_tokens=8)
    second = client.responses.create(model=model, input="And another.", previous_response_id=first.id, max_output_tokens=8)
    assert second.usage.input_tokens > first.usage.input_tokens
    assert client.responses.retrieve(second.id).output_text == second.output_text
    client.responses.delete(second.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(second.id)


def test_a_responses_events_add_up(client: OpenAI, model: str) -> None:
    with client.responses.stream(model=model, input="Name one fruit.", max_output_tokens=8) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        assert "".join(deltas) == stream.get_final_response().output_text


def test_tokens_are_counted_and_read_back(client: OpenAI, model: str) -> None:
    root = str(client.base_url).removesuffix("/v1/")
    told = client.post(f"{root}/tokenize", body={"model": model, "prompt": "Hello there"}, cast_to=object)
    assert told["count"] == len(told["tokens"])
    back = client.post(f"{root}/detokenize", body={"model": model, "tokens": told["tokens"]}, cast_to=object)
    assert back["prompt"] == "Hello there"


def test_what_the_model_cannot_do_is_a_clear_refusal(client: OpenAI, model: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model=model, input="x")
    assert caught.value.code == "unsupported_route"


def test_what_is_answered_is_stored_and_rated(client: OpenAI, model: str) -> None:
    made = client.chat.completions.create(model=model, messages=ASKED, max_tokens=6, metadata={"mark": "real"})
    assert [one.id for one in client.chat.completions.list(metadata={"mark": "real"})] == [made.id]
    assert client.chat.completions.retrieve(made.id).choices[0].message.content == made.choices[0].message.content
    assert client.post("/feedback", body={"target": made.id, "metric": "reward", "value": 0.5}, cast_to=object)["object"] == "feedback"
