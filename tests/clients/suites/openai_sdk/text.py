"""The `openai` package: text completions and embeddings."""

import openai
import pytest
from openai import AsyncOpenAI, OpenAI


def test_a_prompt_is_completed_whole_and_streamed(model: str) -> None:
    client = OpenAI()
    whole = client.completions.create(model=model, prompt="say:naïve 🙂", max_tokens=40)
    assert (whole.object, whole.choices[0].text, whole.choices[0].finish_reason) == ("text_completion", "naïve 🙂", "stop")
    assert whole.id.startswith("cmpl-")
    assert "token_ids" not in whole.model_dump_json(exclude_none=True)
    options = {"include_usage": True}
    chunks = list(client.completions.create(model=model, prompt="say:naïve 🙂", max_tokens=40, stream=True, stream_options=options))
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == "naïve 🙂"
    assert chunks[-1].usage == whole.usage


async def test_the_asynchronous_client_completes(model: str) -> None:
    async with AsyncOpenAI() as client:
        stream = await client.completions.create(model=model, prompt="say:one two", max_tokens=40, stream=True)
        assert "".join([chunk.choices[0].text async for chunk in stream]) == "one two"


def test_several_prompts_have_n_choices_each(model: str) -> None:
    answer = OpenAI().completions.create(model=model, prompt=["say:one", "say:two"], n=2, max_tokens=40)
    assert [(choice.index, choice.text) for choice in answer.choices] == [(0, "one"), (1, "one"), (2, "two"), (3, "two")]


def test_a_prompt_of_token_ids_is_taken(model: str) -> None:
    assert OpenAI().completions.create(model=model, prompt=list(b"say:ids"), max_tokens=40).choices[0].text == "ids"


def test_log_probs_come_as_many_as_asked_for(model: str) -> None:
    told = OpenAI().completions.create(model=model, prompt="say:abc", max_tokens=40, logprobs=2).choices[0].logprobs
    assert told.tokens[:3] == ["a", "b", "c"]
    assert len(told.token_logprobs) == len(told.top_logprobs) == len(told.text_offset)
    assert all(value <= 0 for value in told.token_logprobs)


def test_a_prompts_own_log_probs_are_refused(model: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        OpenAI().completions.create(model=model, prompt="x", echo=True, logprobs=1)
    assert caught.value.code == "unsupported_parameter"


def test_embeddings_come_in_order_as_numbers(model: str) -> None:
    client = OpenAI()
    answer = client.embeddings.create(model=model, input=["one", "two", "one"], dimensions=8)
    assert [row.index for row in answer.data] == [0, 1, 2]
    assert all(len(row.embedding) == 8 and isinstance(row.embedding[0], float) for row in answer.data)
    assert answer.data[0].embedding == answer.data[2].embedding != answer.data[1].embedding
    plain = client.embeddings.create(model=model, input="one", dimensions=8, encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(answer.data[0].embedding, abs=1e-6)
