"""Answers of the routes that generate nothing (embeddings, rerank, score, tokenize, detokenize): only the model's name is changed."""

from __future__ import annotations

from typing import Any

import msgspec

from engines.types import Captured
from ratchet.errors import EngineBroken


class _Named(msgspec.Struct):
    model: str | None = None
    usage: dict[str, Any] | None = None
    error: msgspec.Raw = msgspec.Raw(b"null")


def whole(body: bytes, model: str) -> tuple[bytes, Captured]:
    """The body under the name `model`, and its usage. EngineBroken: it is no JSON object, or an error."""
    try:
        found = msgspec.json.decode(body, type=_Named)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EngineBroken(f"the engine's answer is not JSON: {error}") from None
    if bytes(found.error) != b"null":
        raise EngineBroken("the engine reports an error; its own log has it")
    if found.model is not None and found.model != model:
        body = _renamed(body, found.model, model)
    return body, Captured([], [], found.usage or {}, exact=False)


def _renamed(body: bytes, old: str, new: str) -> bytes:
    # A key with its quotes cannot occur inside a JSON string, so a single match is the key.
    named = b'"model":' + msgspec.json.encode(old)
    if body.count(named) == 1:
        return body.replace(named, b'"model":' + msgspec.json.encode(new))
    return msgspec.json.encode({**msgspec.json.decode(body), "model": new})
