"""An assistant's message put together from the deltas of a stream."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec


class Function(msgspec.Struct, omit_defaults=True):
    name: str | None = None
    arguments: str | None = None


class ToolCall(msgspec.Struct):
    index: int = 0
    id: str | None = None
    type: str | None = None
    function: Function | None = None


class Delta(msgspec.Struct):
    """What one chunk adds to a choice's message."""

    role: str | None = None
    content: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None


class Message:
    """One choice's message so far, and why it ended. A kind's own capture adds the ids and log-probs."""

    __slots__ = ("_calls", "_texts", "finish_reason")

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self._texts: dict[str, list[str]] = {}
        self._calls: dict[int, ToolCall] = {}

    def say(self, text: str) -> None:
        """Add to the content."""
        self._texts.setdefault("content", []).append(text)

    def take(self, delta: Delta) -> None:
        """Add a delta."""
        if delta.content is not None:
            self._texts.setdefault("content", []).append(delta.content)
        if delta.refusal or delta.reasoning or delta.reasoning_content:
            self._take_rare(delta)
        for call in delta.tool_calls or ():
            self._take_call(call)

    def message(self) -> dict[str, Any]:
        """The message in a chat's form."""
        texts = {key: "".join(parts) for key, parts in self._texts.items()}
        message: dict[str, Any] = {"role": "assistant", "content": texts.pop("content", None), **texts}
        if self._calls:
            message["content"] = message["content"] or None
            message["tool_calls"] = list(_finished(call for _, call in sorted(self._calls.items())))
        return message

    def _take_rare(self, delta: Delta) -> None:
        for key in ("refusal", "reasoning", "reasoning_content"):
            if (text := getattr(delta, key)) is not None:
                self._texts.setdefault(key, []).append(text)

    def _take_call(self, call: ToolCall) -> None:
        known = self._calls.setdefault(call.index, ToolCall(call.index, function=Function()))
        known.id, known.type = call.id or known.id, call.type or known.type
        if call.function is not None and known.function is not None:
            known.function.name = (known.function.name or "") + (call.function.name or "")
            known.function.arguments = (known.function.arguments or "") + (call.function.arguments or "")


def _finished(calls: Iterable[ToolCall]) -> Iterable[dict[str, Any]]:
    for call in calls:
        function = call.function or Function()
        yield {"id": call.id, "type": call.type or "function", "function": {"name": function.name, "arguments": function.arguments}}
