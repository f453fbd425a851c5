"""Answers that vLLM 0.32 gave with SmolLM2 (recorded), and how a test reads a stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from engines import sse
from engines.capture import Captured, StreamCapture, Wants

FOLDER = Path(__file__).parent / "recorded"
ID = "chatcmpl-" + "ab" * 16
MODEL = "smollm2"


def payloads(name: str) -> list[bytes]:
    found, rest = sse.split((FOLDER / name).read_bytes())
    assert rest == b""
    return found


def whole(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def stream(events: list[bytes], wants: Wants | None = None, public_id: str = ID, model: str = MODEL) -> tuple[list[bytes], Captured]:
    """What the client sees of `events`, and what was captured."""
    capture = StreamCapture(wants or Wants(), public_id, model)
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
