"""Answers that vLLM 0.32 gave with SmolLM2 (recorded), and how a test reads a stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from engines import Captured, Wants, sse
from engines.vllm.capture import ChoicesCapture

FOLDER = Path(__file__).parent / "recorded"
ID = "chatcmpl-" + "ab" * 16
MODEL = "smollm2"
IDENT = "0f" * 16
FORMS = "forms.json"
WEATHER = {"properties": {"place": {"type": "string"}, "days": {"type": "integer"}}}
ASKED = "the weather in 'Åre' for 2 days?"
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
TOOL = {"type": "function", "name": "get_weather", "parameters": WEATHER}
RESPONSE = {"input": "say:naïve 🙂", "request_id": "resp_" + IDENT, "temperature": 1.0, "top_p": 1.0}
CALL = {**RESPONSE, "input": ASKED, "tools": [TOOL]}
MESSAGE = {"messages": [{"role": "user", "content": "say:naïve 🙂"}], "max_tokens": 64}
USE = {"messages": [{"role": "user", "content": ASKED}], "max_tokens": 900, "tools": [{"name": "get_weather", "input_schema": WEATHER}]}
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "text": ("/v1/completions", {"prompt": "say:naïve 🙂", "logprobs": 0, "return_token_ids": True}),
    "text streamed": ("/v1/completions", {"prompt": "say:naïve 🙂", "logprobs": 2, "return_token_ids": True, **USAGE}),
    "text cut, bare": ("/v1/completions", {"prompt": "say:naïve", "max_tokens": 3, "stream": True}),
    "text batch": ("/v1/completions", {"prompt": ["say:one", "say:two"], "n": 2, "stop": ["o"], **USAGE}),
    "text batch whole": ("/v1/completions", {"prompt": [[97], [98, 99]], "max_tokens": 2, "seed": 5}),
    "text echoed": ("/v1/completions", {"prompt": "say:ab", "echo": True}),
    "text echoed, streamed": ("/v1/completions", {"prompt": "say:ab", "echo": True, "stream": True}),
    "text echoed with ids": ("/v1/completions", {"prompt": "say:ab", "echo": True, "return_token_ids": True, **USAGE}),
    "response": ("/v1/responses", RESPONSE),
    "response streamed": ("/v1/responses", {**RESPONSE, "stream": True}),
    "response cut": ("/v1/responses", {**RESPONSE, "max_output_tokens": 3, "stream": True}),
    "response with log-probs": (
        "/v1/responses",
        {**RESPONSE, "include": ["message.output_text.logprobs"], "top_logprobs": 2, "stream": True, "instructions": "be brief"},
    ),
    "response of a call": ("/v1/responses", CALL),
    "response of a call, streamed": ("/v1/responses", {**CALL, "stream": True}),
    "message": ("/v1/messages", MESSAGE),
    "message streamed": ("/v1/messages", {**MESSAGE, "stream": True}),
    "message cut": ("/v1/messages", {**MESSAGE, "max_tokens": 3, "stream": True}),
    "message stopped": ("/v1/messages", {**MESSAGE, "stop_sequences": ["v"]}),
    "message of a call": ("/v1/messages", USE),
    "message of a call, streamed": ("/v1/messages", {**USE, "stream": True}),
    "embeddings": ("/v1/embeddings", {"input": ["ab", "c"], "dimensions": 3}),
    "embeddings in base64": ("/v1/embeddings", {"input": "ab", "encoding_format": "base64"}),
    "rerank": ("/v1/rerank", {"query": "ab", "documents": ["xy", "ab"], "top_n": 1}),
    "score": ("/v1/score", {"text_1": "ab", "text_2": ["xy", "ab"]}),
    "tokens": ("/tokenize", {"prompt": "ab", "return_token_strs": True}),
    "tokens of a chat": ("/tokenize", {"messages": [{"role": "user", "content": "hi"}]}),
    "detokenized": ("/detokenize", {"tokens": [97, 98]}),
}
"""Requests whose answers vLLM's own code wrote (`record_vllm_forms.py`) from the tokens that the fake draws for them."""


def payloads(name: str) -> list[bytes]:
    found, rest = sse.split((FOLDER / name).read_bytes())
    assert rest == b""
    return found


def whole(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def forms() -> dict[str, str]:
    """The answers to REQUESTS, by their names."""
    found: dict[str, str] = msgspec.json.decode(whole(FORMS))
    return found


def stream(events: list[bytes], wants: Wants | None = None, public_id: str = ID, model: str = MODEL) -> tuple[list[bytes], Captured]:
    """What the client sees of `events`, and what was captured."""
    capture = ChoicesCapture(wants or Wants(), public_id, model)
    seen = [out for event in events if (out := capture.event(event)) is not None]
    return seen, capture.captured()


def chunk(content: str, ids: list[int], logprobs: list[float | None], **fields: Any) -> bytes:
    """A chunk in vLLM's form."""
    entries: list[dict[str, Any]] = [{"token": content, "logprob": value, "bytes": [], "top_logprobs": []} for value in logprobs]
    choice = {"index": 0, "delta": {"content": content}, "logprobs": {"content": entries}, "finish_reason": None, "token_ids": ids}
    return msgspec.json.encode({"id": ID, "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [choice], **fields})


def first(prompt_ids: list[int]) -> bytes:
    choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    return msgspec.json.encode({"id": ID, "created": 1, "model": MODEL, "choices": [choice], "prompt_token_ids": prompt_ids})


def last(prompt: int, completion: int) -> bytes:
    usage = {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}
    return msgspec.json.encode({"id": ID, "created": 1, "model": MODEL, "choices": [], "usage": usage})
