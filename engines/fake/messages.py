"""`/v1/messages`: Anthropic's request as the fake's own, the message and its events in vLLM's form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from engines.fake.answers import Ask, Token
from ratchet.names import CHAT_PREFIX

REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
CHOICES = {"any": "required", "auto": "auto", "none": "none"}


class Asked(msgspec.Struct):
    """The fields that the fake heeds."""

    model: str = ""
    messages: list[dict[str, Any]] = []
    system: str | list[dict[str, Any]] | None = None
    max_tokens: int | None = None
    stream: bool = False
    temperature: float | None = None
    stop_sequences: list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None

    def ask(self) -> Ask:
        choice = self.tool_choice or {}
        named = {"function": {"name": choice.get("name")}} if choice.get("type") == "tool" else CHOICES.get(choice.get("type", "auto"))
        system = [{"role": "system", "content": self.system}] if self.system else []
        return Ask(
            model=self.model,
            messages=[*system, *(_plain(message) for message in self.messages)],
            stream=self.stream,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            stop=self.stop_sequences,
            tools=[{"function": {"name": tool["name"], "parameters": tool.get("input_schema")}} for tool in self.tools or ()],
            tool_choice=named,
        )


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    """A tool's result is the tool's word, not the user's."""
    content = message.get("content")
    results = [block for block in content if block.get("type") == "tool_result"] if isinstance(content, list) else []
    return {"role": "tool", "content": results[0].get("content")} if results else message


class Messages:
    """One message's form."""

    def __init__(self, ask: Ask, request_id: str) -> None:
        self._ask = ask
        self._id = CHAT_PREFIX + request_id

    def whole(self, prompts: Sequence[Sequence[int]], drawn: Sequence[Token]) -> dict[str, Any]:
        call = self._ask.call
        block: dict[str, Any] = {"type": "text", "text": "".join(t.text for t in drawn)}
        if call is not None:
            block = {"type": "tool_use", "id": call.message["id"], "name": call.name, "input": msgspec.json.decode(call.arguments)}
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "content": [block],
            "model": self._ask.model,
            "stop_reason": _reason(drawn[-1]),
            "usage": self._usage(prompts, drawn),
        }

    def begin(self, prompts: Sequence[Sequence[int]]) -> Iterator[bytes]:
        message = {"id": self._id, "type": "message", "role": "assistant", "content": [], "model": self._ask.model}
        usage = {"input_tokens": len(prompts[0]), "output_tokens": 0}
        yield _event("message_start", message={**message, "stop_reason": None, "stop_sequence": None, "usage": usage})
        call = self._ask.call
        block: dict[str, Any] = {"type": "text", "text": ""}
        if call is not None:
            block = {"type": "tool_use", "id": call.message["id"], "name": call.name, "input": {}}
        yield _event("content_block_start", content_block=block, index=0)

    def token(self, token: Token) -> Iterator[bytes]:
        call = self._ask.call
        if call is None:
            if token.text:
                yield _event("content_block_delta", delta={"type": "text_delta", "text": token.text}, index=0)
            return
        for part in call.delta(token.at, token.text).get("tool_calls", ()):
            if "arguments" in part["function"]:
                delta = {"type": "input_json_delta", "partial_json": part["function"]["arguments"]}
                yield _event("content_block_delta", delta=delta, index=0)

    def end(self, prompts: Sequence[Sequence[int]], drawn: Sequence[Token]) -> Iterator[bytes]:
        yield _event("content_block_stop", index=0)
        delta = {"stop_reason": _reason(drawn[-1]), "stop_sequence": drawn[-1].stop}
        yield _event("message_delta", delta=delta, usage=self._usage(prompts, drawn))
        yield _event("message_stop")

    def _usage(self, prompts: Sequence[Sequence[int]], drawn: Sequence[Token]) -> dict[str, int]:
        caches = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
        return {"input_tokens": len(prompts[0]), "output_tokens": len(drawn), **caches}


def _reason(last: Token) -> str:
    return "stop_sequence" if last.stop is not None else REASONS[last.finish or "stop"]


def _event(kind: str, **fields: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), msgspec.json.encode({"type": kind, **fields}))
