"""`/v1/chat/completions` as vLLM 0.32 writes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from engines import sse
from engines.fake.answers import Token
from engines.fake.asks import Ask
from engines.fake.forms.base import Form, entry, likeliest


class ChatForm(Form):
    def whole(self, drawn: Sequence[Token]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.ask.model,
            "choices": [self._choice(index, [t for t in drawn if t.choice == index]) for index in range(self.ask.n)],
            "usage": self.usage(len(drawn)),
            "prompt_logprobs": None,
            "prompt_token_ids": self._prompt_ids(),
        }

    def first(self) -> bytes:
        return b"".join(sse.frame(self.opening(index)) for index in range(self.ask.n))

    def opening(self, index: int) -> bytes:
        """A choice's first chunk: its role, and the prompt's ids."""
        choice = {"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        return msgspec.json.encode({**self._head, "choices": [choice], "prompt_token_ids": self._prompt_ids(), "prompt_text": None})

    def token(self, token: Token) -> bytes:
        self.count += 1
        choice: dict[str, Any] = {
            "index": token.choice,
            "delta": delta(self.ask, token),
            "logprobs": _logprobs([token], self.ask.top_logprobs or 0) if self.ask.logprobs else None,
            "finish_reason": token.finish,
        }
        if token.finish is not None:
            choice["stop_reason"] = token.stop
        choice["token_ids"] = [token.id] if self.ask.return_token_ids else None
        return sse.frame(msgspec.json.encode({**self._head, "choices": [choice]}))

    def last(self) -> bytes:
        usage = b""
        if (self.ask.stream_options or {}).get("include_usage"):
            usage = sse.frame(msgspec.json.encode({**self._head, "choices": [], "usage": self.usage(self.count)}))
        return usage + sse.frame(sse.DONE)

    @property
    def _head(self) -> dict[str, Any]:
        return {"id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.ask.model}

    def _prompt_ids(self) -> list[int] | None:
        return self.prompt if self.ask.return_token_ids else None

    def _choice(self, index: int, drawn: Sequence[Token]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(t.text for t in drawn), "refusal": None}
        if self.ask.call is not None and drawn[-1].finish == "tool_calls":
            message |= {"content": None, "tool_calls": [self.ask.call.message]}
        return {
            "index": index,
            "message": message,
            "logprobs": _logprobs(drawn, self.ask.top_logprobs or 0) if self.ask.logprobs else None,
            "finish_reason": drawn[-1].finish,
            "stop_reason": drawn[-1].stop,
            "token_ids": [t.id for t in drawn] if self.ask.return_token_ids else None,
        }


def delta(ask: Ask, token: Token) -> dict[str, Any]:
    """What a token adds to a chat's message."""
    return {"content": token.text} if ask.call is None else ask.call.delta(token.at, token.text)


def _logprobs(drawn: Sequence[Token], top: int) -> dict[str, Any]:
    return {"content": [{**entry(t.id, t.logprob), "top_logprobs": [entry(*pair) for pair in likeliest(t, top)]} for t in drawn]}
