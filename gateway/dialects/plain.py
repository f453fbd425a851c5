"""The routes that generate nothing: embeddings, rerank, score, tokenize, detokenize. They are passed through and counted, not
recorded."""

from __future__ import annotations

from typing import Any

from engines.routes import POOLING, TOKENS
from gateway.dialects import forms
from gateway.dialects.base import Ask, Dialect, sendable
from gateway.dialects.convert import convert
from gateway.dialects.text import prompts_in
from gateway.errors import invalid
from ratchet.config import GatewayConfig

FORMS: dict[str, type[Any]] = {
    **dict(zip(POOLING, (forms.EmbeddingsRequest, forms.RerankRequest, forms.ScoreRequest), strict=True)),
    **dict(zip(TOKENS, (forms.TokenizeRequest, forms.DetokenizeRequest), strict=True)),
}
EITHER = {"/v1/score": (("text_1", "text_2"), ("queries", "documents")), "/tokenize": (("prompt",), ("messages",))}
"""Exactly one of the two sets of fields must be given, and in full."""


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


def _one_of(request: Any, first: tuple[str, ...], second: tuple[str, ...]) -> None:
    given = [name for name in first + second if getattr(request, name) is not None]
    if set(given) not in (set(first), set(second)):
        ways = " or ".join(" and ".join(repr(name) for name in names) for names in (first, second))
        raise invalid(f"Give {ways}.", (given or list(first))[0], "missing_required_parameter")
