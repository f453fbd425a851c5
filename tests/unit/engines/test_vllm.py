"""What is asked of vLLM beside the client's own request, and what it made of it (recorded/)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engines import connect
from engines.vllm.capture import Captured, StreamCapture, Wants, capture_whole
from ratchet.types import EngineRecord
from tests.unit.engines.samples import payloads, whole

TEXT, ID = "/v1/completions", "cmpl-" + "cd" * 16
ENGINE = connect(EngineRecord("e", "vllm", "m", "http://127.0.0.1:9", "m"))


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        ({}, {"return_token_ids": True, "logprobs": 0}),
        ({"logprobs": 3}, {"return_token_ids": True, "logprobs": 3}),
        ({"stream": True}, {"return_token_ids": True, "logprobs": 0, "stream_options": {"include_usage": True}}),
        ({"echo": True, "logprobs": 1}, {}),
        ({"echo": True, "stream": True}, {"stream_options": {"include_usage": True}}),
    ],
)
async def test_a_text_is_asked_for_ids_unless_it_is_to_repeat_its_prompt(body: dict[str, Any], asked: dict[str, Any]) -> None:
    assert ENGINE.extras(TEXT, body) == asked


@pytest.mark.parametrize("route", ["/v1/responses", "/v1/messages", "/v1/embeddings", "/v1/score", "/tokenize"])
async def test_of_routes_that_give_no_ids_nothing_is_asked(route: str) -> None:
    assert ENGINE.extras(route, {"stream": True}) == {}


def test_asked_for_ids_vllm_leaves_out_the_prompt_that_it_should_repeat() -> None:
    told = json.loads(whole("echo_with_ids.json"))["choices"][0]
    assert told["text"] == "".join(told["logprobs"]["tokens"][2:])
    assert told["prompt_logprobs"] is not None  # nor would the client have seen these


def texts(wants: Wants) -> list[tuple[list[dict[str, Any]], Captured]]:
    """The recorded texts, streamed and whole: what the client sees, and what is kept."""
    capture = StreamCapture(wants, ID, "support@3")
    seen = [out for event in payloads("completion.sse") if (out := capture.event(event)) is not None]
    assert seen.pop() == b"[DONE]"
    body, kept = capture_whole(whole("text.json"), wants, ID, "support@3")
    return [([json.loads(chunk) for chunk in seen], capture.captured()), ([json.loads(body)], kept)]


def test_texts_are_kept_exactly_each_choice_by_itself() -> None:
    for seen, kept in texts(Wants()):
        assert kept.exact and kept.finished
        assert [choice.index for choice in kept.choices] == sorted({part["index"] for chunk in seen for part in chunk["choices"]})
        for choice in kept.choices:
            said = [part["text"] for chunk in seen for part in chunk["choices"] if part["index"] == choice.index]
            assert choice.message == {"role": "assistant", "content": "".join(said)}
            assert len(choice.token_ids) == len(choice.logprobs) > 0


def test_of_a_text_the_client_sees_neither_ids_nor_log_probs_that_it_did_not_ask_for() -> None:
    for seen, _ in texts(Wants()):
        assert {(chunk["id"], chunk["model"]) for chunk in seen} == {(ID, "support@3")}
        parts = [part for chunk in seen for part in chunk["choices"]]
        assert parts
        assert all(part["logprobs"] is None and not part.keys() & {"token_ids", "prompt_token_ids"} for part in parts)


def test_a_client_that_asked_sees_all_of_a_text() -> None:
    wants = Wants(logprobs=True, token_ids=True, usage=True)
    streamed, entire = (seen for seen, _ in texts(wants))
    for seen, sent in ((streamed, payloads("completion.sse")[:-1]), (entire, [whole("text.json")])):
        assert seen == [json.loads(old) | {"id": ID, "model": "support@3"} for old in sent]
