"""Embeddings, rerank, score, tokenize and detokenize as vLLM 0.32 writes them."""

from __future__ import annotations

import base64
import hashlib
import math
import struct
import time
from collections.abc import Callable
from typing import Any

from engines.fake import model
from engines.fake.asks import Ask

SIZE, MOST = 16, 4096
"""A vector's numbers, where no `dimensions` are asked for, and at most."""
MAX_MODEL_LEN = 2**20
Answer = Callable[[dict[str, Any], str, str], dict[str, Any]]
"""(the request's body, the id's own part, the model's name) to the answer's body. LookupError, TypeError: no request of that form."""


def vector(text: str, size: int) -> list[float]:
    """A unit vector [size] that tells texts apart."""
    drawn = [hashlib.blake2b(f"{i}|{text}".encode(), digest_size=2).digest() for i in range(size)]
    numbers = [int.from_bytes(two, "big") / 2**15 - 1 for two in drawn]
    length = math.hypot(*numbers) or 1.0
    return [number / length for number in numbers]


def likeness(one: str, other: str) -> float:
    """The share of the first text's words that the other has, in [0, 1]."""
    words = set(one.split())
    return len(words & set(other.split())) / max(1, len(words))


def embeddings(tree: dict[str, Any], ident: str, served: str) -> dict[str, Any]:
    size = min(tree.get("dimensions") or SIZE, MOST)
    prompts = Ask(prompt=tree["input"]).prompts
    wanted: Callable[[list[float]], Any] = _packed if tree.get("encoding_format") == "base64" else list
    rows = [{"index": i, "object": "embedding", "embedding": wanted(vector(model.text_of(ids), size))} for i, ids in enumerate(prompts)]
    return _listed("embd-" + ident, served, rows, sum(len(ids) for ids in prompts))


def rerank(tree: dict[str, Any], ident: str, served: str) -> dict[str, Any]:
    query, documents = tree["query"], tree["documents"]
    rows: list[dict[str, Any]] = [
        {"index": i, "document": {"text": text, "multi_modal": None}, "relevance_score": likeness(query, text)}
        for i, text in enumerate(documents)
    ]
    rows.sort(key=lambda row: float(row["relevance_score"]), reverse=True)
    count = sum(len(query) + len(text) for text in documents)
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"id": "score-" + ident, "model": served, "usage": usage, "results": rows[: tree.get("top_n") or None]}


def score(tree: dict[str, Any], ident: str, served: str) -> dict[str, Any]:
    """One text against many, or each against its own."""
    one, other = (_texts(tree.get(a) or tree[b]) for a, b in (("text_1", "queries"), ("text_2", "documents")))
    pairs = list(zip(one * len(other) if len(one) == 1 else one, other, strict=True))
    rows = [{"index": i, "object": "score", "score": likeness(*pair)} for i, pair in enumerate(pairs)]
    return _listed("score-" + ident, served, rows, sum(len(a) + len(b) for a, b in pairs))


def tokenize(tree: dict[str, Any], ident: str, served: str) -> dict[str, Any]:
    ids = model.prompt_ids(tree["messages"]) if tree.get("messages") else model.ids_of(tree["prompt"])
    strings = [model.token_text(token) for token in ids] if tree.get("return_token_strs") else None
    return {"count": len(ids), "max_model_len": MAX_MODEL_LEN, "tokens": ids, "token_strs": strings}


def detokenize(tree: dict[str, Any], ident: str, served: str) -> dict[str, Any]:
    return {"prompt": model.text_of(tree["tokens"])}


ROUTES: dict[str, Answer] = {
    "/v1/embeddings": embeddings,
    "/v1/rerank": rerank,
    "/v1/score": score,
    "/tokenize": tokenize,
    "/detokenize": detokenize,
}


def _listed(ident: str, served: str, rows: list[dict[str, Any]], count: int) -> dict[str, Any]:
    usage = {"prompt_tokens": count, "total_tokens": count, "completion_tokens": 0}
    details = {"prompt_tokens_details": None, "completion_tokens_details": None}
    return {"id": ident, "object": "list", "created": int(time.time()), "model": served, "data": rows, "usage": {**usage, **details}}


def _packed(values: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def _texts(given: str | list[str]) -> list[str]:
    return [given] if isinstance(given, str) else given
