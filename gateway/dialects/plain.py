"""The routes that generate nothing: embeddings, rerank, score, tokenize, detokenize. Passed through, counted, not recorded."""

from __future__ import annotations

from typing import Any

import msgspec

from engines.vllm.capture import Captured
from gateway.api.paths import POOLING, TOKENS
from gateway.dialects import forms
from gateway.dialects.base import Ask, Dialect, sendable
from gateway.dialects.convert import convert
from gateway.dialects.text import prompts_in
from gateway.errors import invalid
from ratchet.config import GatewayConfig
from ratchet.errors import EngineBroken

FORMS: dict[str, type[Any]] = {
    **dict(zip(POOLING, (forms.EmbeddingsRequest, forms.RerankRequest, forms.ScoreRequest), strict=True)),
    **dict(zip(TOKENS, (forms.TokenizeRequest, forms.DetokenizeRequest), strict=True)),
}
EITHER = {"/v1/score": (("text_1", "text_2"), ("queries", "documents")), "/tokenize": (("prompt",), ("messages",))}
"""One of the two sets of fields is given, and whole."""


class _Named(msgspec.Struct):
    model: str | None = None
    usage: dict[str, Any] | None = None
    error: msgspec.Raw = msgspec.Raw(b"null")


class Plain(Dialect):
    recorded = False

    def __init__(self, path: str) -> None:
        self.path = path

    def check(self, tree: dict[str, Any], config: GatewayConfig) -> Ask:
        request = convert(tree, FORMS[self.path])
        if isinstance(request, forms.EmbeddingsRequest):
            prompts_in(request.input)
        if self.path in EITHER:
            _one_of(request, *EITHER[self.path])
        return Ask(tree=tree, sent=sendable(tree), model=request.model, store=False)

    def whole(self, told: bytes, ask: Ask, public_id: str, model: str) -> tuple[bytes, Captured]:
        try:
            found = msgspec.json.decode(told, type=_Named)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise EngineBroken(f"the engine's answer is not JSON: {error}") from None
        if bytes(found.error) != b"null":
            raise EngineBroken("the engine reports an error; its own log has it")
        if found.model is not None and found.model != model:
            told = _renamed(told, found.model, model)
        return told, Captured([], [], found.usage or {}, exact=False)


def _renamed(told: bytes, old: str, new: str) -> bytes:
    """A key with its quotes cannot occur inside a JSON string, so what is found is the key."""
    named = b'"model":' + msgspec.json.encode(old)
    if told.count(named) == 1:
        return told.replace(named, b'"model":' + msgspec.json.encode(new))
    return msgspec.json.encode({**msgspec.json.decode(told), "model": new})


def _one_of(request: Any, first: tuple[str, ...], second: tuple[str, ...]) -> None:
    given = [name for name in first + second if getattr(request, name) is not None]
    if set(given) not in (set(first), set(second)):
        ways = " or ".join(" and ".join(repr(name) for name in names) for names in (first, second))
        raise invalid(f"Give {ways}.", (given or list(first))[0], "missing_required_parameter")
