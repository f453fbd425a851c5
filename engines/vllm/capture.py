"""What the recorder learns from an answer while the client reads it, exactly as the engine drew it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from engines.sse import DONE
from engines.vllm import body as wire
from engines.vllm import cut
from engines.vllm.cut import Wants
from ratchet.errors import EngineBroken
from ratchet.types import Choice

__all__ = ["Captured", "StreamCapture", "Wants", "capture_whole"]

BATCH = 64
"""Tokens whose ids and log-probs are decoded together."""
ENDS = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
"""OpenAI's finish reasons. Any other tells that the engine gave up: vLLM writes "abort" when it is stopped."""


class Captured(msgspec.Struct, frozen=True):
    """One answer as the recorder keeps it.

    `prompt_ids` [P]; `choices` in the order of their index; `usage` as the engine counted ({}: it said nothing).
    `exact`: every choice's ids and log-probs pair up and agree with the engine's own counts. What is missing is left
    out, never padded.
    """

    prompt_ids: list[int]
    choices: list[Choice]
    usage: dict[str, Any]
    exact: bool
    response: dict[str, Any] | None = None
    """The answer as the client saw it, of a route whose answer is no list of choices."""

    @property
    def finished(self) -> bool:
        """Whether every choice came to an end of its own."""
        return bool(self.choices) and all(c.finish_reason in ENDS for c in self.choices)


class StreamCapture:
    """A streamed answer. `rename` is the model name that the client is to see.

    `done` turns true at `[DONE]`; a stream that ends before it was cut off. `finished` says that every choice told its end.
    """

    def __init__(self, wants: Wants, public_id: str, rename: str) -> None:
        self.done = False
        self._wants = wants
        self._id = public_id
        self._model = rename
        self._heard: dict[int, _Heard] = {}
        self._prompt_ids: list[int] = []
        self._usage: dict[str, Any] = {}

    @property
    def finished(self) -> bool:
        return bool(self._heard) and all(h.finish_reason in ENDS for h in self._heard.values())

    def event(self, data: bytes) -> bytes | None:
        """Takes one SSE payload in and returns the payload the client may see (None: none).

        EngineBroken if the engine reports an error in the stream, sends what is no chunk, or gave a choice up.
        """
        if data == DONE:
            self.done = True
            return data
        body = wire.parse(data)
        if body.usage is not None:
            self._usage = body.usage
        if body.prompt_token_ids is not wire.ABSENT:
            self._prompt_ids = wire.ids(body.prompt_token_ids) or self._prompt_ids
        for part in body.choices:
            heard = self._heard.get(part.index)
            if heard is None:
                heard = self._heard[part.index] = _Heard()
            heard.take(part)
            if part.prompt_token_ids is not wire.ABSENT:
                self._prompt_ids = wire.ids(part.prompt_token_ids) or self._prompt_ids
        for part in body.choices:
            if part.finish_reason is not None and part.finish_reason not in ENDS:
                raise EngineBroken(f"the engine gave up: {part.finish_reason[:50]}")
        if cut.hidden(data, body, self._wants):
            return None
        return cut.visible(data, body, self._wants, self._id, self._model)

    def captured(self) -> Captured:
        """What was heard so far; `exact` only once the stream has told its usage. EngineBroken if ids or log-probs are of another form."""
        choices = [heard.choice(index) for index, heard in sorted(self._heard.items())]
        sound = all(heard.sound for heard in self._heard.values())
        return Captured(self._prompt_ids, choices, self._usage, sound and agrees(self._prompt_ids, choices, self._usage))


def capture_whole(body: bytes, wants: Wants, public_id: str, rename: str) -> tuple[bytes, Captured]:
    """A whole answer: the body the client may see, and what it holds (it may be not `finished`). EngineBroken if it is no answer."""
    parsed = wire.parse(body)
    if not parsed.choices:
        raise EngineBroken("the engine's answer has no choices")
    prompt_ids, usage = wire.ids(parsed.prompt_token_ids), parsed.usage or {}
    choices, sound = [], True
    for part in sorted(parsed.choices, key=lambda p: p.index):
        found = wire.logprobs(part.logprobs)
        values = [v for v in found if v is not None]
        sound = sound and len(values) == len(found)
        prompt_ids = prompt_ids or wire.ids(part.prompt_token_ids)
        message = part.message if part.text is None else {"role": "assistant", "content": part.text}
        choices.append(Choice(part.index, wire.ids(part.token_ids), values, message or {}, part.finish_reason))
    captured = Captured(prompt_ids, choices, usage, sound and agrees(prompt_ids, choices, usage))
    return cut.visible(body, parsed, wants, public_id, rename), captured


def agrees(prompt_ids: list[int], choices: list[Choice], usage: dict[str, Any]) -> bool:
    """Whether ids and log-probs pair up in each choice, and their number is what the engine counted."""
    paired = all(len(c.token_ids) == len(c.logprobs) for c in choices)
    counted = sum(len(c.token_ids) for c in choices) == usage.get("completion_tokens")
    return bool(choices) and paired and counted and 0 < len(prompt_ids) == usage.get("prompt_tokens")


class _Heard:
    """One choice of a stream, as far as it has come. `sound` turns false once a decoded token's log-prob was missing."""

    __slots__ = ("_ids", "_logprobs", "_raw_ids", "_raw_logprobs", "calls", "finish_reason", "sound", "texts")

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._logprobs: list[float] = []
        self.sound = True
        # Spans that wait to be decoded: many at once cost a fraction of one by one.
        self._raw_ids: list[msgspec.Raw] = []
        self._raw_logprobs: list[msgspec.Raw] = []
        self.finish_reason: str | None = None
        self.texts: dict[str, list[str]] = {}
        self.calls: dict[int, wire.ToolCall] = {}

    def take(self, part: wire.Part) -> None:
        if part.token_ids is not wire.ABSENT:
            self._raw_ids.append(part.token_ids)
        if part.logprobs is not wire.ABSENT:
            self._raw_logprobs.append(part.logprobs)
        if len(self._raw_ids) >= BATCH or len(self._raw_logprobs) >= BATCH:
            self._decode()  # a span keeps its whole event in memory
        if part.finish_reason is not None:
            self.finish_reason = part.finish_reason
        if part.text is not None:
            self.texts.setdefault("content", []).append(part.text)
        delta = part.delta
        if delta is None:
            return
        if delta.content is not None:
            self.texts.setdefault("content", []).append(delta.content)
        if delta.refusal or delta.reasoning or delta.reasoning_content:
            self._take_rare(delta)
        for call in delta.tool_calls or ():
            self._take_call(call)

    def _decode(self) -> None:
        raw_ids, raw_logprobs = self._raw_ids, self._raw_logprobs
        self._raw_ids, self._raw_logprobs = [], []  # what is broken is told once
        self._ids += wire.many_ids(raw_ids)
        found = wire.many_logprobs(raw_logprobs)
        values = [value for value in found if value is not None]
        self.sound = self.sound and len(values) == len(found)
        self._logprobs += values

    def _take_rare(self, delta: wire.Delta) -> None:
        for key in ("refusal", "reasoning", "reasoning_content"):
            if (text := getattr(delta, key)) is not None:
                self.texts.setdefault(key, []).append(text)

    def _take_call(self, call: wire.ToolCall) -> None:
        known = self.calls.setdefault(call.index, wire.ToolCall(call.index, function=wire.Function()))
        known.id, known.type = call.id or known.id, call.type or known.type
        if call.function is not None and known.function is not None:
            known.function.name = (known.function.name or "") + (call.function.name or "")
            known.function.arguments = (known.function.arguments or "") + (call.function.arguments or "")

    def choice(self, index: int) -> Choice:
        """EngineBroken if ids or log-probs are of another form."""
        self._decode()
        texts = {key: "".join(parts) for key, parts in self.texts.items()}
        message: dict[str, Any] = {"role": "assistant", "content": texts.pop("content", None), **texts}
        if self.calls:
            message["content"] = message["content"] or None
            message["tool_calls"] = list(_calls(call for _, call in sorted(self.calls.items())))
        return Choice(index, list(self._ids), list(self._logprobs), message, self.finish_reason)


def _calls(calls: Iterable[wire.ToolCall]) -> Iterable[dict[str, Any]]:
    for call in calls:
        function = call.function or wire.Function()
        yield {"id": call.id, "type": call.type or "function", "function": {"name": function.name, "arguments": function.arguments}}
