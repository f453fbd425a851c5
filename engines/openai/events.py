"""Routes whose streams are named events without token ids: OpenAI's responses, Anthropic's messages.

Events are passed on unchanged but for those that carry an id or a model's name. An engine's words about an error may contain the
prompt's, so they are in no EngineBroken.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from engines import sse
from engines.stream import EventCapture
from engines.types import Captured, Wants
from ratchet.errors import EngineBroken
from ratchet.types import Choice

STOPS = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls"}
"""Anthropic's stop reasons in OpenAI's words."""
_T = TypeVar("_T")


class _Usage(msgspec.Struct):
    """The last two are Anthropic's, and not included in its `input_tokens`."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class _Block(msgspec.Struct):
    """A part of a message's content, of either form."""

    type: str = ""
    text: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None


class _Item(msgspec.Struct):
    type: str = ""
    content: list[_Block] | str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None


class _Response(msgspec.Struct):
    object: str = ""
    status: str | None = None
    output: list[_Item] = []
    usage: _Usage | None = None


class _Message(msgspec.Struct):
    type: str = ""
    content: list[_Block] = []
    stop_reason: str | None = None
    usage: _Usage | None = None


class _Delta(msgspec.Struct):
    text: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class _MessageEvent(msgspec.Struct):
    type: str
    index: int = 0
    delta: _Delta | None = None
    content_block: _Block | None = None
    message: _Message | None = None
    usage: _Usage | None = None


class _Kind(msgspec.Struct):
    type: str


class _TextDelta(msgspec.Struct):
    delta: str = ""


_KIND = msgspec.json.Decoder(_Kind)
_TEXT_DELTA = msgspec.json.Decoder(_TextDelta)
_MESSAGE_EVENT = msgspec.json.Decoder(_MessageEvent)
_TREE = msgspec.json.Decoder(dict[str, Any])


def kind_of(data: bytes) -> str:
    """The `type` of an event. EngineBroken: it has none."""
    return _decoded(_KIND, data).type


def tree_of(data: bytes) -> dict[str, Any]:
    """`data` as a JSON object. EngineBroken: it is none, or reports an error."""
    tree = _decoded(_TREE, data)
    if tree.get("error") is not None:
        raise _reported()
    return tree


def _decoded(decoder: msgspec.json.Decoder[_T], data: bytes) -> _T:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EngineBroken(f"the engine's answer is of another form: {error}") from None


def _as(tree: dict[str, Any], kind: type[_T]) -> _T:
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        raise EngineBroken(f"the engine's answer is of another form: {error}") from None


def _reported() -> EngineBroken:
    return EngineBroken("the engine reports an error; its own log has it")


class _NamedEvents(EventCapture[bytes]):
    """The client's events are named by the `type` in their payloads."""

    split = staticmethod(sse.split)

    @staticmethod
    def frame(*payloads: bytes) -> bytes:
        return b"".join([b"event: %s\ndata: %s\n\n" % (kind_of(payload).encode(), payload) for payload in payloads])


class ResponsesCapture(_NamedEvents):
    """A streamed response. Its id, the model's name and `wants.overlay` are laid over each `response` object."""

    def __init__(self, wants: Wants, public_id: str, model: str) -> None:
        super().__init__()
        self._patch = _patch(wants, public_id, model)
        self._texts: list[str] = []
        self._captured: Captured | None = None

    def event(self, event: bytes) -> bytes | None:
        kind = kind_of(event)
        if kind == "response.output_text.delta":
            self._texts.append(_decoded(_TEXT_DELTA, event).delta)
            return event
        if kind in ("error", "response.failed"):
            raise _reported()
        if not kind.startswith("response.") or kind.count(".") > 1 or b'"response":' not in event:
            return event
        tree = tree_of(event)
        if not isinstance(tree.get("response"), dict):
            return event
        tree["response"] |= self._patch
        if kind in ("response.completed", "response.incomplete"):
            self.done, self._captured = True, response_of(tree["response"])
        return msgspec.json.encode(tree)

    def captured(self) -> Captured:
        return self._captured or Captured([], [Choice(0, [], [], _said("".join(self._texts)))], {}, exact=False)


def capture_response(body: bytes, wants: Wants, public_id: str, model: str) -> tuple[bytes, Captured]:
    """A whole response: the body the client may see, and the record. EngineBroken: it failed, or is none."""
    tree = tree_of(body) | _patch(wants, public_id, model)
    if tree.get("object") != "response":
        raise EngineBroken("the engine's answer is no response")
    return msgspec.json.encode(tree), response_of(tree)


def _patch(wants: Wants, public_id: str, model: str) -> dict[str, Any]:
    return {"id": public_id, "model": model, **(wants.overlay or {})}


def response_of(tree: dict[str, Any]) -> Captured:
    """A `response` object as it is recorded. EngineBroken: it is of another form."""
    found = _as(tree, _Response)
    parts = [part for item in found.output if item.type == "message" and isinstance(item.content, list) for part in item.content]
    text = "".join(part.text or "" for part in parts if part.type == "output_text")
    calls = [_call(item.call_id, item.name, item.arguments or "") for item in found.output if item.type == "function_call"]
    reason = {"completed": "tool_calls" if calls else "stop", "incomplete": "length"}.get(found.status or "")
    return Captured([], [Choice(0, [], [], _said(text, calls), reason)], _counted(found.usage), exact=False, response=tree)


class MessagesCapture(_NamedEvents):
    """A streamed Anthropic message."""

    def __init__(self, public_id: str, model: str) -> None:
        super().__init__()
        self._id, self._model = public_id, model
        self._texts: list[str] = []
        self._calls: dict[int, _Item] = {}
        self._reason: str | None = None
        self._usage = _Usage()

    def event(self, event: bytes) -> bytes | None:
        found = _decoded(_MESSAGE_EVENT, event)
        if found.type == "content_block_delta":
            self._take(found.index, found.delta or _Delta())
        elif found.type == "error":
            raise _reported()
        elif found.type == "message_start" and found.message is not None:
            self._count(found.message.usage)
            tree = tree_of(event)
            tree["message"] |= {"id": self._id, "model": self._model}
            return msgspec.json.encode(tree)
        elif found.type == "content_block_start" and found.content_block is not None and found.content_block.type == "tool_use":
            self._calls[found.index] = _Item("", None, found.content_block.id, found.content_block.name, "")
        elif found.type == "message_delta":
            self._count(found.usage)
            self._reason = (found.delta or _Delta()).stop_reason or self._reason
        elif found.type == "message_stop":
            self.done = True
        return event

    def _take(self, index: int, delta: _Delta) -> None:
        if delta.text is not None:
            self._texts.append(delta.text)
        if delta.partial_json is not None and (call := self._calls.get(index)) is not None:
            call.arguments = (call.arguments or "") + delta.partial_json

    def _count(self, usage: _Usage | None) -> None:
        if usage is not None:
            both = zip(msgspec.structs.astuple(usage), msgspec.structs.astuple(self._usage), strict=True)
            self._usage = _Usage(*(before if after is None else after for after, before in both))

    def captured(self) -> Captured:
        calls = [_call(call.call_id, call.name, call.arguments or "{}") for _, call in sorted(self._calls.items())]
        return _message("".join(self._texts), calls, self._reason, self._usage)


def capture_message(body: bytes, public_id: str, model: str) -> tuple[bytes, Captured]:
    """A whole message: the body the client may see, and the record. EngineBroken: it is none."""
    tree = tree_of(body) | {"id": public_id, "model": model}
    found = _as(tree, _Message)
    if found.type != "message":
        raise EngineBroken("the engine's answer is no message")
    text = "".join(block.text or "" for block in found.content if block.type == "text")
    used = [block for block in found.content if block.type == "tool_use"]
    calls = [_call(block.id, block.name, msgspec.json.encode(block.input or {}).decode()) for block in used]
    return msgspec.json.encode(tree), _message(text, calls, found.stop_reason, found.usage)


def _message(text: str, calls: list[dict[str, Any]], reason: str | None, usage: _Usage | None) -> Captured:
    return Captured([], [Choice(0, [], [], _said(text, calls), STOPS.get(reason or ""))], _counted(usage), exact=False)


def _said(text: str, calls: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """The assistant's message in a chat's form."""
    return {"role": "assistant", "content": text or None, "tool_calls": calls} if calls else {"role": "assistant", "content": text}


def _call(ident: str | None, name: str | None, arguments: str) -> dict[str, Any]:
    return {"id": ident, "type": "function", "function": {"name": name, "arguments": arguments}}


def _counted(usage: _Usage | None) -> dict[str, Any]:
    """The usage in a chat's form; {} where the engine did not count both."""
    if usage is None or usage.input_tokens is None or usage.output_tokens is None:
        return {}
    prompt = usage.input_tokens + (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    return {"prompt_tokens": prompt, "completion_tokens": usage.output_tokens, "total_tokens": prompt + usage.output_tokens}
