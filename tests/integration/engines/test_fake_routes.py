"""The fake's other routes, held against what vLLM 0.32 answered (tests/support/recorded)."""

from __future__ import annotations

import json
from itertools import groupby
from typing import Any

import aiohttp
import pytest

from engines.fake.pooling import vector
from tests.support.fake_engine import BASE, fake_engine
from tests.support.vllm_samples import FOLDER

PARAMETERS = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
RESPONSE_TOOL = {"type": "function", "name": "get_weather", "parameters": PARAMETERS}
MESSAGE_TOOL = {"name": "get_weather", "input_schema": PARAMETERS}
HELLO = [{"role": "user", "content": "say:naïve 🙂"}]
OSLO = "What is the weather in 'Oslo'?"
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "completion": ("/v1/completions", {"prompt": "Hello", "n": 2, "logprobs": 1, "return_token_ids": True}),
    "response": ("/v1/responses", {"input": "Say hi", "max_output_tokens": 5, "temperature": 1.0, "top_p": 1.0}),
    "response_tool": (
        "/v1/responses",
        {"input": OSLO, "tools": [RESPONSE_TOOL], "tool_choice": "required", "temperature": 0.0, "top_p": 1.0},
    ),
    "message": ("/v1/messages", {"messages": HELLO, "max_tokens": 4}),
    "message_tool": ("/v1/messages", {"messages": [{"role": "user", "content": OSLO}], "max_tokens": 500, "tools": [MESSAGE_TOOL]}),
    "tokenize": ("/tokenize", {"prompt": "Hello there", "return_token_strs": True}),
    "detokenize": ("/detokenize", {"tokens": [104, 105]}),
}


async def post(path: str, **body: Any) -> str:
    sent = {"model": BASE, **body}
    async with fake_engine() as (_, record), aiohttp.ClientSession() as http, http.post(record.url + path, json=sent) as answer:
        return await answer.text()


def shape(tree: Any) -> Any:
    """The keys of a tree and the kinds of its values; of a list its first item's, and null fits everything."""
    if isinstance(tree, dict):
        return {key: shape(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [shape(tree[0])] if tree else []
    return None if tree is None else "number" if isinstance(tree, (int, float)) else type(tree).__name__


def fits(ours: Any, theirs: Any) -> bool:
    """Whether every key of ours is one of theirs, with the same kind of value."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        free = not theirs or "place" in theirs  # a schema, a tool's input, likeliest tokens: anybody's keys
        return free or all(key in theirs and fits(value, theirs[key]) for key, value in ours.items())
    if isinstance(ours, list) and isinstance(theirs, list):
        return not ours or not theirs or fits(ours[0], theirs[0])
    return ours is None or theirs is None or ours == theirs


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


def likeliest(tree: Any) -> None:
    """Takes out what has tokens as keys."""
    if isinstance(tree, dict):
        tree.pop("top_logprobs", None)
        for value in tree.values():
            likeliest(value)
    if isinstance(tree, list):
        for value in tree:
            likeliest(value)


@pytest.mark.parametrize("name", [name for name in ASKED if (FOLDER / f"{name}.json").exists()])
async def test_a_whole_answer_has_vllms_fields_and_no_others(name: str) -> None:
    path, body = ASKED[name]
    ours, theirs = json.loads(await post(path, **body)), json.loads((FOLDER / f"{name}.json").read_text())
    likeliest(ours)
    likeliest(theirs)
    assert fits(shape(ours), shape(theirs)), (ours, theirs)


@pytest.mark.parametrize("name", [name for name in ASKED if (FOLDER / f"{name}.sse").exists()])
async def test_a_streams_events_come_in_vllms_order_with_its_fields(name: str) -> None:
    path, body = ASKED[name]
    options = {"stream_options": {"include_usage": True}} if name == "completion" else {}
    ours, theirs = events(await post(path, stream=True, **options, **body)), events((FOLDER / f"{name}.sse").read_text())
    kinds = [[kind for kind, _ in groupby(event.get("type") for event in stream)] for stream in (ours, theirs)]
    assert kinds[0] == kinds[1]
    for event in ours:
        likeliest(event)
        twins = [twin for twin in theirs if twin.get("type") == event.get("type")]
        for twin in twins:
            likeliest(twin)
        assert any(fits(shape(event), shape(twin)) for twin in twins), (event, twins[:2])


async def test_a_plain_prompt_is_answered_to_the_byte_and_echoed() -> None:
    choices = json.loads(await post("/v1/completions", prompt=["say:one", "say:two"], n=2, echo=True, max_tokens=20))["choices"]
    assert [choice["text"] for choice in choices] == ["say:oneone", "say:oneone", "say:twotwo", "say:twotwo"]
    ids = json.loads(await post("/v1/completions", prompt=list(b"say:hi"), max_tokens=20))
    assert ids["choices"][0]["text"] == "hi"


async def test_a_response_and_a_message_say_what_they_are_told_to_and_why_they_ended() -> None:
    response = json.loads(await post("/v1/responses", input=HELLO))
    assert (response["output"][0]["content"][0]["text"], response["status"]) == ("naïve 🙂", "completed")
    cut = json.loads(await post("/v1/responses", input=HELLO, max_output_tokens=1))
    assert cut["incomplete_details"] == {"reason": "max_output_tokens"}
    message = json.loads(await post("/v1/messages", messages=HELLO, max_tokens=50))
    assert (message["content"][0]["text"], message["stop_reason"]) == ("naïve 🙂", "end_turn")
    called = json.loads(await post("/v1/messages", **ASKED["message_tool"][1]))
    assert (called["content"][0]["input"], called["stop_reason"]) == ({"place": "Oslo"}, "tool_use")


async def test_embeddings_tell_texts_apart_in_either_encoding() -> None:
    response = json.loads(await post("/v1/embeddings", input=["a", "b"], dimensions=8))
    assert [row["embedding"] for row in response["data"]] == [vector("a", 8), vector("b", 8)]
    assert abs(sum(x * x for x in vector("a", 8)) - 1) < 1e-9
    encoded = json.loads(await post("/v1/embeddings", input="a", dimensions=8, encoding_format="base64"))
    assert isinstance(encoded["data"][0]["embedding"], str)


async def test_the_likest_document_comes_first() -> None:
    ranked = json.loads(await post("/v1/rerank", query="red moon", documents=["blue sea", "a red moon", "red sea"], top_n=2))
    assert [(row["index"], row["relevance_score"]) for row in ranked["results"]] == [(1, 1.0), (2, 0.5)]
    scored = json.loads(await post("/v1/score", text_1="red moon", text_2=["blue sea", "a red moon"]))
    assert [row["score"] for row in scored["data"]] == [0.0, 1.0]
