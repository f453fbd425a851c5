"""LlamaIndex's OpenAILike: chat and completion, whole, streamed and asynchronous; tools; structured predictions."""

import os

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

HELLO = [ChatMessage(role="system", content="You are helpful."), ChatMessage(role="user", content="say:hello there")]


class Plan(BaseModel):
    title: str
    hours: int


@pytest.fixture
def llm(model: str) -> OpenAILike:
    return OpenAILike(
        model=model,
        api_base=os.environ["OPENAI_BASE_URL"],
        api_key=os.environ["OPENAI_API_KEY"],
        is_chat_model=True,
        is_function_calling_model=True,
        max_retries=0,
    )


def test_it_chats(llm: OpenAILike) -> None:
    answer = llm.chat(HELLO)
    assert answer.message.content == "hello there"
    assert answer.raw.usage.completion_tokens > 0


def test_it_streams(llm: OpenAILike) -> None:
    parts = list(llm.stream_chat(HELLO))
    assert "".join(part.delta or "" for part in parts) == parts[-1].message.content == "hello there"


async def test_it_chats_and_streams_asynchronously(llm: OpenAILike) -> None:
    assert (await llm.achat(HELLO)).message.content == "hello there"
    parts = [part async for part in await llm.astream_chat(HELLO)]
    assert parts[-1].message.content == "hello there"


def test_it_completes_by_chat(llm: OpenAILike) -> None:
    assert llm.complete("say:done").text == "done"


def get_weather(place: str, days: int) -> str:
    """The weather at a place."""
    return f"sunny in {place} for {days} days"


def test_it_calls_a_tool(llm: OpenAILike) -> None:
    answer = llm.predict_and_call([FunctionTool.from_defaults(get_weather)], "What is the weather in 'Oslo' for 2 days?")
    assert str(answer) == "sunny in Oslo for 2 days"


def test_it_predicts_a_class(llm: OpenAILike) -> None:
    answer = llm.as_structured_llm(Plan).chat([ChatMessage(role="user", content="Plan 'a trip' of 3 hours")])
    assert answer.raw == Plan(title="a trip", hours=3)


def test_it_completes_a_prompt_by_the_completions_route(model: str) -> None:
    plain = OpenAILike(model=model, api_base=os.environ["OPENAI_BASE_URL"], api_key=os.environ["OPENAI_API_KEY"], max_tokens=40)
    assert plain.complete("say:plain").text == "plain"
    assert list(plain.stream_complete("say:plain"))[-1].text == "plain"


async def test_it_embeds(model: str) -> None:
    embedder = OpenAILikeEmbedding(model_name=model, api_base=os.environ["OPENAI_BASE_URL"], api_key=os.environ["OPENAI_API_KEY"])
    one, two = embedder.get_text_embedding_batch(["one", "two"])
    assert one != two
    assert await embedder.aget_query_embedding("one") == pytest.approx(one)
