"""What the recorder learns from routes whose streams are named events and give no token ids: OpenAI's responses, Anthropic's messages.

Events are passed on as they came, but for those that carry an id or a model name. What an engine says of an error may hold the
prompt's words, so it is in no EngineBroken.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from engines.vllm.capture import Captured
from ratchet.errors import EngineBroken
from ratchet.types import Choice

STOPS = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls"}
"""Anthropic's stop reasons in OpenAI's words."""
_T = TypeVar("_T")


class _Usage(msgspec.Struct):
    """Of Anthropic's form the last two, which are not among its `input_tokens`."""

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
    """An event's `type`. EngineBroken if it has none."""
    return _decoded(_KIND, data).type


def tree_of(data: bytes) -> dict[str, Any]:
    """The JSON object in `data`. EngineBroken if it is none, or reports an error."""
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


class ResponsesCapture:
    """A streamed response. `patch` is laid over each `response` object: id, model, what the gateway kept to itself."""

    def __init__(self, patch: dict[str, Any]) -> None:
        self.done = False
        self._patch = patch
        self._texts: list[str] = []
        self._captured: Captured | None = None

    def event(self, data: bytes) -> bytes | None:
        """Takes one payload in and returns the payload the client may see. EngineBroken if it tells of a failure."""
        kind = kind_of(data)
        if kind == "response.output_text.delta":
            self._texts.append(_decoded(_TEXT_DELTA, data).delta)
            return data
        if kind in ("error", "response.failed"):
            raise _reported()
        if not kind.startswith("response.") or kind.count(".") > 1 or b'"response":' not in data:
            return data
        tree = tree_of(data)
        if not isinstance(tree.get("response"), dict):
            return data
        tree["response"] |= self._patch
        if kind in ("response.completed", "response.incomplete"):
            self.done, self._captured = True, response_of(tree["response"])
        return msgspec.json.encode(tree)

    def captured(self) -> Captured:
        return self._captured or Captured([], [Choice(0, [], [], _said("".join(self._texts)))], {}, exact=False)


def capture_response(body: bytes, patch: dict[str, Any]) -> tuple[bytes, Captured]:
    """A whole response: the body the client may see, and what it holds. EngineBroken if it failed or is none."""
    tree = tree_of(body) | patch
    if tree.get("object") != "response":
        raise EngineBroken("the engine's answer is no response")
    return msgspec.json.encode(tree), response_of(tree)


def response_of(tree: dict[str, Any]) -> Captured:
    """A `response` object as recorded. EngineBroken if it is of another form."""
    found = _as(tree, _Response)
    parts = [part for item in found.output if item.type == "message" and isinstance(item.content, list) for part in item.content]
    text = "".join(part.text or "" for part in parts if part.type == "output_text")
    calls = [_call(item.call_id, item.name, item.arguments or "") for item in found.output if item.type == "function_call"]
    reason = {"completed": "tool_calls" if calls else "stop", "incomplete": "length"}.get(found.status or "")
    return Captured([], [Choice(0, [], [], _said(text, calls), reason)], _counted(found.usage), exact=False, response=tree)


class MessagesCapture:
    """A streamed Anthropic message."""

    def __init__(self, public_id: str, rename: str) -> None:
        self.done = False
        self._id, self._model = public_id, rename
        self._texts: list[str] = []
        self._calls: dict[int, _Item] = {}
        self._reason: str | None = None
        self._usage = _Usage()

    def event(self, data: bytes) -> bytes | None:
        """Takes one payload in and returns the payload the client may see. EngineBroken if it tells of a failure."""
        event = _decoded(_MESSAGE_EVENT, data)
        if event.type == "content_block_delta":
            self._take(event.index, event.delta or _Delta())
        elif event.type == "error":
            raise _reported()
        elif event.type == "message_start" and event.message is not None:
            self._count(event.message.usage)
            tree = tree_of(data)
            tree["message"] |= {"id": self._id, "model": self._model}
            return msgspec.json.encode(tree)
        elif event.type == "content_block_start" and event.content_block is not None and event.content_block.type == "tool_use":
            self._calls[event.index] = _Item("", None, event.content_block.id, event.content_block.name, "")
        elif event.type == "message_delta":
            self._count(event.usage)
            self._reason = (event.delta or _Delta()).stop_reason or self._reason
        elif event.type == "message_stop":
            self.done = True
        return data

    def _take(self, index: int, delta: _Delta) -> None:
        if delta.text is not None:
            self._texts.append(delta.text)
        if delta.partial_json is not None and (call := self._calls.get(index)) is not None:
            call.arguments = (call.arguments or "") + delta.partial_json

    def _count(self, told: _Usage | None) -> None:
        if told is not None:
            both = zip(msgspec.structs.astuple(told), msgspec.structs.astuple(self._usage), strict=True)
            self._usage = _Usage(*(before if after is None else after for after, before in both))

    def captured(self) -> Captured:
        calls = [_call(call.call_id, call.name, call.arguments or "{}") for _, call in sorted(self._calls.items())]
        return _message("".join(self._texts), calls, self._reason, self._usage)


def capture_message(body: bytes, public_id: str, rename: str) -> tuple[bytes, Captured]:
    """A whole message: the body the client may see, and what it holds. EngineBroken if it is none."""
    tree = tree_of(body) | {"id": public_id, "model": rename}
    found = _as(tree, _Message)
    if found.type != "message":
        raise EngineBroken("the engine's answer is no message")
    text = "".join(block.text or "" for block in found.content if block.type == "text")
    used = [block for block in found.content if block.type == "tool_use"]
    calls = [_call(block.id, block.name, msgspec.json.encode(block.input or {}).decode()) for block in used]
    return msgspec.json.encode(tree), _message(text, calls, found.stop_reason, found.usage)


def _message(text: str, calls: list[dict[str, Any]], reason: str | None, told: _Usage | None) -> Captured:
    return Captured([], [Choice(0, [], [], _said(text, calls), STOPS.get(reason or ""))], _counted(told), exact=False)


def _said(text: str, calls: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """The assistant's message in a chat's form."""
    return {"role": "assistant", "content": text or None, "tool_calls": calls} if calls else {"role": "assistant", "content": text}


def _call(ident: str | None, name: str | None, arguments: str) -> dict[str, Any]:
    return {"id": ident, "type": "function", "function": {"name": name, "arguments": arguments}}


def _counted(told: _Usage | None) -> dict[str, Any]:
    """A chat's usage; nothing where the engine did not tell both."""
    if told is None or told.input_tokens is None or told.output_tokens is None:
        return {}
    prompt = told.input_tokens + (told.cache_read_input_tokens or 0) + (told.cache_creation_input_tokens or 0)
    return {"prompt_tokens": prompt, "completion_tokens": told.output_tokens, "total_tokens": prompt + told.output_tokens}
