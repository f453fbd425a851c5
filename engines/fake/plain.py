"""The routes that generate nothing, in vLLM's form: embeddings, rerank, score, tokenize, detokenize."""

from __future__ import annotations

import base64
import hashlib
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from engines.fake import model
from engines.fake.answers import Ask

DIMENSIONS = 16
MAX_MODEL_LEN = 2**20
Texts = str | list[str]


class Asked(msgspec.Struct):
    """The fields that the fake heeds, of all these routes."""

    model: str = ""
    input: str | list[str | int | list[int]] = ""
    dimensions: int | None = None
    encoding_format: str | None = None
    query: str = ""
    documents: Texts | None = None
    queries: Texts | None = None
    text_1: Texts | None = None
    text_2: Texts | None = None
    top_n: int | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] = []
    return_token_strs: bool = False
    tokens: list[int] = []


def embeddings(asked: Asked) -> dict[str, Any]:
    texts = [model.text_of(ids) for ids in Ask(prompt=asked.input).prompts()]
    data = [{"index": i, "object": "embedding", "embedding": _told(asked, text)} for i, text in enumerate(texts)]
    return {**_head("embd-", asked), "object": "list", "data": data, "usage": _usage(texts)}


def rerank(asked: Asked) -> dict[str, Any]:
    documents = _list(asked.documents)
    order = sorted(range(len(documents)), key=lambda i: -_likeness(asked.query, documents[i]))[: asked.top_n or len(documents)]
    rows = [
        {"index": i, "document": {"text": documents[i], "multi_modal": None}, "relevance_score": _likeness(asked.query, documents[i])}
        for i in order
    ]
    return {**_head("score-", asked), "usage": _usage([asked.query, *documents]), "results": rows}


def score(asked: Asked) -> dict[str, Any]:
    first, second = _list(asked.text_1 or asked.queries), _list(asked.text_2 or asked.documents)
    pairs = [(first[0], text) for text in second] if len(first) == 1 else list(zip(first, second, strict=False))
    data = [{"index": i, "object": "score", "score": _likeness(*pair)} for i, pair in enumerate(pairs)]
    return {**_head("score-", asked), "object": "list", "data": data, "usage": _usage([*first, *second])}


def tokenize(asked: Asked) -> dict[str, Any]:
    ids = Ask(messages=asked.messages, prompt=asked.prompt or "").prompts()[0]
    strings = [model.token_text(token) for token in ids] if asked.return_token_strs else None
    return {"count": len(ids), "max_model_len": MAX_MODEL_LEN, "tokens": ids, "token_strs": strings}


def detokenize(asked: Asked) -> dict[str, Any]:
    return {"prompt": model.text_of(asked.tokens)}


ROUTES: dict[str, Callable[[Asked], dict[str, Any]]] = {
    "/v1/embeddings": embeddings,
    "/v1/rerank": rerank,
    "/v1/score": score,
    "/tokenize": tokenize,
    "/detokenize": detokenize,
}


def vector(text: str, dimensions: int) -> list[float]:
    """A unit vector that tells texts apart."""
    numbers = [
        int.from_bytes(hashlib.blake2b(f"{i}|{text}".encode(), digest_size=2).digest(), "big") / 2**15 - 1 for i in range(dimensions)
    ]
    length = sum(x * x for x in numbers) ** 0.5
    return [x / length for x in numbers]


def _told(asked: Asked, text: str) -> list[float] | str:
    numbers = vector(text, min(asked.dimensions or DIMENSIONS, 4096))
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode() if asked.encoding_format == "base64" else numbers


def _likeness(one: str, other: str) -> float:
    """The share of the first text's words that the second has."""
    words = set(one.split())
    return len(words & set(other.split())) / max(1, len(words))


def _list(texts: Texts | None) -> list[str]:
    return [texts] if isinstance(texts, str) else texts or []


def _usage(texts: Sequence[str]) -> dict[str, Any]:
    count = sum(len(text.encode()) for text in texts)
    return {"prompt_tokens": count, "total_tokens": count, "completion_tokens": 0, "prompt_tokens_details": None}


def _head(prefix: str, asked: Asked) -> dict[str, Any]:
    return {"id": prefix + "0123456789abcdef", "created": int(time.time()), "model": asked.model}
