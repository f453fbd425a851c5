"""What the recorder learns from routes whose streams are named events and give no token ids: OpenAI's responses, Anthropic's messages.

Events are passed on as they came, but for those that carry an id or a model name.
"""

from __future__ import annotations

from typing import Any

import msgspec

from engines.capture import Captured
from ratchet.errors import EngineBroken
from ratchet.types import Choice

STOPS = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls"}
"""Anthropic's stop reasons in OpenAI's words."""


USAGE = (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"), ("total_tokens", "total_tokens"))


class _Event(msgspec.Struct):
    type: str
    delta: msgspec.Raw = msgspec.Raw(b"null")


_EVENT = msgspec.json.Decoder(_Event)
_TREE = msgspec.json.Decoder(dict[str, Any])


def tree_of(data: bytes) -> dict[str, Any]:
    """The JSON object in `data`. EngineBroken if it is none, or reports an error."""
    try:
        tree = _TREE.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EngineBroken(f"the engine's answer is not JSON: {error}") from None
    if tree.get("error") is not None:
        raise EngineBroken(f"the engine reports an error: {str(tree['error'])[:300]}")
    return tree


def kind_of(data: bytes) -> str:
    """An event's `type`. EngineBroken if it has none."""
    return _event(data).type


def _event(data: bytes) -> _Event:
    try:
        return _EVENT.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EngineBroken(f"the engine's event is of another form: {error}") from None


class ResponsesCapture:
    """A streamed response. `patch` is laid over each `response` object: id, model, what the gateway kept to itself."""

    def __init__(self, patch: dict[str, Any]) -> None:
        self.done = False
        self._patch = patch
        self._texts: list[str] = []
        self._response: dict[str, Any] | None = None

    def event(self, data: bytes) -> bytes | None:
        """Takes one payload in and returns the payload the client may see. EngineBroken if it tells of a failure."""
        event = _event(data)
        if event.type == "response.output_text.delta":
            self._texts.append(_text(event.delta))
            return data
        if event.type in ("error", "response.failed"):
            raise EngineBroken(f"the engine reports an error: {data[:300].decode(errors='replace')}")
        if not event.type.startswith("response.") or event.type.count(".") > 1 or b'"response":' not in data:
            return data
        tree = tree_of(data)
        if not isinstance(tree.get("response"), dict):
            return data
        tree["response"] |= self._patch
        if event.type in ("response.completed", "response.incomplete"):
            self.done, self._response = True, tree["response"]
        return msgspec.json.encode(tree)

    def captured(self) -> Captured:
        if self._response is not None:
            return response_of(self._response)
        return Captured([], [Choice(0, [], [], {"role": "assistant", "content": "".join(self._texts)})], {}, exact=False)


def capture_response(body: bytes, patch: dict[str, Any]) -> tuple[bytes, Captured]:
    """A whole response: the body the client may see, and what it holds. EngineBroken if it failed or is none."""
    tree = tree_of(body) | patch
    if tree.get("object") != "response":
        raise EngineBroken("the engine's answer is no response")
    return msgspec.json.encode(tree), response_of(tree)


def response_of(tree: dict[str, Any]) -> Captured:
    """A `response` object as recorded."""
    items = [item for item in tree.get("output") or () if isinstance(item, dict)]
    parts = [part for item in items if item.get("type") == "message" for part in item.get("content") or () if isinstance(part, dict)]
    text = "".join(str(part["text"]) for part in parts if part.get("type") == "output_text" and "text" in part)
    called = any(item.get("type") == "function_call" for item in items)
    reason = {"completed": "tool_calls" if called else "stop", "incomplete": "length"}.get(str(tree.get("status")))
    told = tree.get("usage") or {}
    usage = {
        "prompt_tokens": told.get("input_tokens"),
        "completion_tokens": told.get("output_tokens"),
        "total_tokens": told.get("total_tokens"),
    }
    message = {"role": "assistant", "content": text}
    return Captured([], [Choice(0, [], [], message, reason)], usage if told else {}, exact=False, response=tree)


class MessagesCapture:
    """A streamed Anthropic message."""

    def __init__(self, public_id: str, rename: str) -> None:
        self.done = False
        self._id, self._model = public_id, rename
        self._texts: list[str] = []
        self._reason: str | None = None
        self._usage: dict[str, Any] = {}

    def event(self, data: bytes) -> bytes | None:
        """Takes one payload in and returns the payload the client may see. EngineBroken if it tells of a failure."""
        event = _event(data)
        if event.type == "content_block_delta":
            self._texts.append(_text(event.delta))
        elif event.type == "error":
            raise EngineBroken(f"the engine reports an error: {data[:300].decode(errors='replace')}")
        elif event.type == "message_start":
            tree = tree_of(data)
            if isinstance(tree.get("message"), dict):
                self._usage |= tree["message"].get("usage") or {}
                tree["message"] |= {"id": self._id, "model": self._model}
            return msgspec.json.encode(tree)
        elif event.type == "message_delta":
            tree = tree_of(data)
            self._usage |= tree.get("usage") or {}
            self._reason = (tree.get("delta") or {}).get("stop_reason") or self._reason
        elif event.type == "message_stop":
            self.done = True
        return data

    def captured(self) -> Captured:
        return _message("".join(self._texts), self._reason, self._usage)


def capture_message(body: bytes, public_id: str, rename: str) -> tuple[bytes, Captured]:
    """A whole message: the body the client may see, and what it holds. EngineBroken if it is none."""
    tree = tree_of(body) | {"id": public_id, "model": rename}
    if tree.get("type") != "message":
        raise EngineBroken("the engine's answer is no message")
    text = "".join(str(part.get("text") or "") for part in tree.get("content") or () if isinstance(part, dict))
    return msgspec.json.encode(tree), _message(text, tree.get("stop_reason"), tree.get("usage") or {})


def _message(text: str, reason: str | None, told: dict[str, Any]) -> Captured:
    usage = {"prompt_tokens": told.get("input_tokens"), "completion_tokens": told.get("output_tokens")} if told else {}
    return Captured([], [Choice(0, [], [], {"role": "assistant", "content": text}, STOPS.get(reason or ""))], usage, exact=False)


def _text(delta: msgspec.Raw) -> str:
    """The text of a delta: a string, or an object that has one."""
    found = msgspec.json.decode(delta)
    return str(found if isinstance(found, str) else (found or {}).get("text") or "")
