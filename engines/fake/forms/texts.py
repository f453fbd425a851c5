"""`/v1/completions` as vLLM 0.32 writes it, its habit included: with `return_token_ids`, `echo` repeats no prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from engines import sse
from engines.fake import model
from engines.fake.answers import Token
from engines.fake.asks import Ask
from engines.fake.forms.base import FINGERPRINT, Form, likeliest

PROMPT = -1
"""Stands for a choice's index at a token of the prompt."""


class TextForm(Form):
    def __init__(self, ask: Ask, public_id: str) -> None:
        super().__init__(ask, public_id)
        self._offsets: dict[int, int] = {}
        """Where the next token of each choice begins."""

    def whole(self, drawn: Sequence[Token]) -> dict[str, Any]:
        choices = range(self.ask.n * len(self.ask.prompts))
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.ask.model,
            "choices": [self._choice(index, [t for t in drawn if t.choice == index]) for index in choices],
            "service_tier": None,
            "system_fingerprint": FINGERPRINT,
            "usage": {**self.usage(len(drawn)), "prompt_tokens_details": None, "completion_tokens_details": None},
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }

    def first(self) -> bytes:
        return b""

    def token(self, token: Token) -> bytes:
        self.count += 1
        ask, prompt, begins = self.ask, self._prompt(token.choice), token.at == 0
        choice = {
            "index": token.choice,
            "text": (self._echoed(prompt) if begins else "") + token.text,
            "logprobs": self._logprobs(token.choice, self._shown(prompt, [token]) if begins else [token]),
            "finish_reason": token.finish,
            "stop_reason": token.stop,
            "prompt_token_ids": prompt if begins and (ask.return_token_ids or ask.echo) else None,
            "token_ids": [token.id] if ask.return_token_ids else None,
        }
        end = {"system_fingerprint": FINGERPRINT} if token.finish is not None and not self._wants_usage else {}
        return sse.frame(msgspec.json.encode({**self._head, "choices": [choice], **end}))

    def last(self) -> bytes:
        usage = b""
        if self._wants_usage:
            chunk = {**self._head, "choices": [], "usage": self.usage(self.count), "system_fingerprint": FINGERPRINT}
            usage = sse.frame(msgspec.json.encode(chunk))
        return usage + sse.frame(sse.DONE)

    @property
    def _head(self) -> dict[str, Any]:
        return {"id": self.id, "object": "text_completion", "created": self.created, "model": self.ask.model}

    @property
    def _wants_usage(self) -> bool:
        return bool((self.ask.stream_options or {}).get("include_usage"))

    def _prompt(self, index: int) -> list[int]:
        return self.ask.prompts[index // self.ask.n]

    def _echoed(self, prompt: Sequence[int]) -> str:
        return model.text_of(prompt) if self.ask.echo and not self.ask.return_token_ids else ""

    def _shown(self, prompt: Sequence[int], drawn: Sequence[Token]) -> Sequence[Token]:
        """The tokens whose log-probs are written: the prompt's too where it is repeated."""
        if not self.ask.echo:
            return drawn
        before = [Token(PROMPT, ident, model.logprob(self.ask.model, prompt[:at], at, ident), "", at) for at, ident in enumerate(prompt)]
        return [*before, *drawn]

    def _choice(self, index: int, drawn: Sequence[Token]) -> dict[str, Any]:
        prompt, ids = self._prompt(index), self.ask.return_token_ids
        return {
            "index": index,
            "text": self._echoed(prompt) + "".join(t.text for t in drawn),
            "logprobs": self._logprobs(index, self._shown(prompt, drawn)),
            "finish_reason": drawn[-1].finish,
            "stop_reason": drawn[-1].stop,
            "token_ids": [t.id for t in drawn] if ids else None,
            "prompt_logprobs": None,
            "prompt_token_ids": list(prompt) if ids else None,
            "routed_experts": None,
        }

    def _logprobs(self, index: int, drawn: Sequence[Token]) -> dict[str, Any] | None:
        top = self.ask.logprobs
        if top is None or top is False:
            return None
        begin, offsets, texts = self._offsets.get(index, 0), [], [model.token_text(t.id) for t in drawn]
        for text in texts:
            offsets.append(begin)
            begin += len(text)
        self._offsets[index] = begin
        known = [t.choice != PROMPT or t.at > 0 for t in drawn]  # nothing comes before a prompt's first token
        pairs = [likeliest(token, max(1, int(top))) for token in drawn]
        tops = [{model.token_text(ident): value for ident, value in found} for found in pairs]
        return {
            "text_offset": offsets,
            "token_logprobs": [t.logprob if given else None for t, given in zip(drawn, known, strict=True)],
            "tokens": texts,
            "top_logprobs": [found if given else None for found, given in zip(tops, known, strict=True)],
        }
