"""The answer's form on each generating route: a whole body, or a stream's frames, in exactly the form of vLLM 0.32."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import msgspec

from engines import sse
from engines.fake import model
from engines.fake.answers import Ask, Token, chat_logprobs, usage
from ratchet.names import CHAT_PREFIX, TEXT_PREFIX


class Form(Protocol):
    """One answer's form; `prompts` are the ids of each prompt, the choices' tokens come in any order."""

    def whole(self, prompts: Sequence[Sequence[int]], drawn: Sequence[Token]) -> dict[str, Any]: ...

    def begin(self, prompts: Sequence[Sequence[int]]) -> Iterator[bytes]:
        """What a stream begins with."""

    def token(self, token: Token) -> Iterator[bytes]:
        """What a token brings."""

    def end(self, prompts: Sequence[Sequence[int]], drawn: Sequence[Token]) -> Iterator[bytes]:
        """What a stream ends with."""


class Chat:
    """`/v1/chat/completions`."""

    def __init__(self, ask: Ask, request_id: str) -> None:
        self._ask = ask
        self._id = CHAT_PREFIX + request_id
        self._head = {"id": self._id, "object": "chat.completion.chunk", "created": int(time.time()), "model": ask.model}

    def whole(self, prompts: Sequence[Sequence[int]], drawn: Sequence[Token]) -> dict[str, Any]:
        choices = [self._choice(index, [t for t in drawn if t.choice == index]) for index in range(self._ask.n)]
        return {
            **self._head,
            "object": "chat.completion",
            "choices": choices,
            "usage": usage(prompts, len(drawn)),
            "prompt_logprobs": None,
            "prompt_token_ids": list(prompts[0]) if self._ask.return_token_ids else None,
        }

    def _choice(self, index: int, drawn: Sequence[Token]) -> dict[str, Any]:
        ask = self._ask
        message: dict[str, Any] = {"role": "assistant", "content": "".join(t.text for t in drawn), "refusal": None}
        if ask.call is not None and drawn[-1].finish == "tool_calls":
            message |= {"content": None, "tool_calls": [ask.call.message]}
        return {
            "index": index,
            "message": message,
            "logprobs": chat_logprobs(drawn, ask.top_logprobs or 0) if ask.logprobs else None,
            "finish_reason": drawn[-1].finish,
            "stop_reason": drawn[-1].stop,
            "token_ids": [t.id for t in drawn] if ask.return_token_ids else None,
        }

    def begin(self, prompts: Sequence[Sequence[int]]) -> Iterator[bytes]:
        ids = list(prompts[0]) if self._ask.return_token_ids else None
        for index in range(self._ask.n):
            choice = {"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
            yield _framed({**self._head, "choices": [choice], "prompt_token_ids": ids, "prompt_text": None})

    def token(self, token: Token) -> Iterator[bytes]:
        call = self._ask.call
        choice: dict[str, Any] = {
            "index": token.choice,
            "delta": {"content": token.text} if call is None else call.delta(token.at, token.text),
            "logprobs": chat_logprobs([token], self._ask.top_logprobs or 0) if self._ask.logprobs else None,
            "finish_reason": token.finish,
        }
        if token.finish is not None:
            choice["stop_reason"] = token.stop
        choice["token_ids"] = [token.id] if self._ask.return_token_ids else None
        yield _framed({**self._head, "choices": [choice]})

    def end(self, prompts: Sequence[Sequence[int]], drawn: Sequence[Token]) -> Iterator[bytes]:
        if (self._ask.stream_options or {}).get("include_usage"):
            yield _framed({**self._head, "choices": [], "usage": usage(prompts, len(drawn))})
        yield sse.frame(sse.DONE)


class Text:
    """`/v1/completions`. Choice `p * n + i` is the `i`-th of prompt `p`."""

    def __init__(self, ask: Ask, request_id: str) -> None:
        self._ask = ask
        self._head = {"id": TEXT_PREFIX + request_id, "object": "text_completion", "created": int(time.time()), "model": ask.model}
        self._lengths: dict[int, int] = {}
        self._prompts: Sequence[Sequence[int]] = []

    def whole(self, prompts: Sequence[Sequence[int]], drawn: Sequence[Token]) -> dict[str, Any]:
        choices = [self._choice(index, prompts, [t for t in drawn if t.choice == index]) for index in range(self._ask.n * len(prompts))]
        return {**self._head, "choices": choices, "usage": usage(prompts, len(drawn))}

    def _choice(self, index: int, prompts: Sequence[Sequence[int]], drawn: Sequence[Token]) -> dict[str, Any]:
        prompt = prompts[index // self._ask.n]
        return {
            "index": index,
            "text": self._echoed(prompt) + "".join(t.text for t in drawn),
            "logprobs": self._logprobs(drawn, 0),
            "finish_reason": drawn[-1].finish,
            "stop_reason": drawn[-1].stop,
            "token_ids": [t.id for t in drawn] if self._ask.return_token_ids else None,
            "prompt_logprobs": None,
            "prompt_token_ids": list(prompt) if self._ask.return_token_ids else None,
        }

    def _echoed(self, prompt: Sequence[int]) -> str:
        return model.text_of(prompt) if self._ask.echo else ""

    def _logprobs(self, drawn: Sequence[Token], offset: int) -> dict[str, Any] | None:
        top = self._ask.logprobs
        if top is None:
            return None
        told = chat_logprobs(drawn, int(top))["content"]
        offsets = [offset + sum(len(t.text) for t in drawn[:i]) for i in range(len(drawn))]
        return {
            "text_offset": offsets,
            "token_logprobs": [t.logprob for t in drawn],
            "tokens": [model.token_text(t.id) for t in drawn],
            "top_logprobs": [{top["token"]: top["logprob"] for top in t["top_logprobs"]} for t in told],
        }

    def begin(self, prompts: Sequence[Sequence[int]]) -> Iterator[bytes]:
        self._prompts = prompts
        return iter(())

    def token(self, token: Token) -> Iterator[bytes]:
        prompt = self._prompts[token.choice // self._ask.n]
        offset = self._lengths.get(token.choice, 0)
        text = (self._echoed(prompt) if token.at == 0 else "") + token.text
        self._lengths[token.choice] = offset + len(text)
        choice = {
            "index": token.choice,
            "text": text,
            "logprobs": self._logprobs([token], offset),
            "finish_reason": token.finish,
            "stop_reason": token.stop,
            "prompt_token_ids": list(prompt) if self._ask.return_token_ids and token.at == 0 else None,
            "token_ids": [token.id] if self._ask.return_token_ids else None,
        }
        yield _framed({**self._head, "choices": [choice]})

    def end(self, prompts: Sequence[Sequence[int]], drawn: Sequence[Token]) -> Iterator[bytes]:
        if (self._ask.stream_options or {}).get("include_usage"):
            yield _framed({**self._head, "choices": [], "usage": usage(prompts, len(drawn))})
        yield sse.frame(sse.DONE)


def _framed(tree: dict[str, Any]) -> bytes:
    return sse.frame(msgspec.json.encode(tree))
