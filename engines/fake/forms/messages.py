"""`/v1/messages` as vLLM 0.32 writes it: Anthropic's form, made from a chat's answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from engines.fake.answers import Token
from engines.fake.asks import Ask
from engines.fake.forms.base import Form
from engines.fake.forms.chats import delta
from engines.fake.play import Call


class MessageForm(Form):
    def __init__(self, ask: Ask, public_id: str) -> None:
        super().__init__(ask, public_id)
        self._last: Token | None = None
        self._open = False

    def whole(self, drawn: Sequence[Token]) -> dict[str, Any]:
        reason, sequence = _reason(drawn[-1], self.ask.call)
        message = {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "content": [self._content(drawn)],
            "model": self.ask.model,
            "stop_reason": reason,
            "stop_sequence": sequence,
            "usage": self._counted(len(drawn)),
        }
        return {key: value for key, value in message.items() if value is not None}

    def first(self) -> bytes:
        message: dict[str, Any] = {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": self.ask.model,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": self._counted(0),
        }
        return _event("message_start", message=message)

    def token(self, token: Token) -> bytes:
        self.count, self._last = self.count + 1, token
        if self.ask.call is not None:
            return self._called(self.ask.call, token)
        if not token.text:
            return b""
        return self._begin({"type": "text", "text": ""}) + _event(
            "content_block_delta", delta={"type": "text_delta", "text": token.text}, index=0
        )

    def last(self) -> bytes:
        reason, sequence = _reason(self._last, self.ask.call)
        end = _event("content_block_stop", index=0) if self._open else b""
        ended = {"stop_reason": reason, "stop_sequence": sequence}
        return end + _event("message_delta", delta=ended, usage=self._counted(self.count)) + _event("message_stop")

    def _content(self, drawn: Sequence[Token]) -> dict[str, Any]:
        if self.ask.call is not None and drawn[-1].finish == "tool_calls":
            return {"type": "tool_use", **_head(self.ask.call), "input": msgspec.json.decode(self.ask.call.arguments)}
        return {"type": "text", "text": "".join(token.text for token in drawn)}

    def _begin(self, block: dict[str, Any]) -> bytes:
        if self._open:
            return b""
        self._open = True
        return _event("content_block_start", content_block=block, index=0)

    def _called(self, call: Call, token: Token) -> bytes:
        calls = delta(self.ask, token).get("tool_calls")
        if not calls:
            return b""
        start = self._begin({"type": "tool_use", **_head(call), "input": {}})
        added = calls[0]["function"].get("arguments")
        if not added:
            return start
        return start + _event("content_block_delta", delta={"type": "input_json_delta", "partial_json": added}, index=0)

    def _counted(self, completion: int) -> dict[str, int]:
        return {"input_tokens": len(self.prompt), "output_tokens": completion}


def _head(call: Call) -> dict[str, Any]:
    return {"id": call.message["id"], "name": call.name}


def _event(kind: str, **fields: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), msgspec.json.encode({"type": kind, **fields}))


def _reason(token: Token | None, call: Call | None) -> tuple[str, str | None]:
    if token is None or token.finish == "length":
        return "max_tokens", None
    if call is not None:
        return "tool_use", None
    return ("end_turn", None) if token.stop is None else ("stop_sequence", token.stop)
