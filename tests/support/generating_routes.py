"""The generating routes, as tests of what they share see them. Import from here; it needs no conftest."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from tests.support.gateway_process import POLICY

CHAT, TEXT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"


class Form(NamedTuple):
    """A route's way to ask for a text of any length, what its ids begin with, and what its stream's last two events have in them."""

    path: str
    prefix: str
    before: str
    last: str
    trainable: bool

    def body(self, text: str, **fields: Any) -> dict[str, Any]:
        """A request whose answer is `text`."""
        said = f"say:{text}"
        turns = [{"role": "user", "content": said}]
        asked: dict[str, dict[str, Any]] = {
            CHAT: {"messages": turns},
            TEXT: {"prompt": said, "max_tokens": 500},
            RESPONSES: {"input": said},
            MESSAGES: {"messages": turns, "max_tokens": 500},
        }
        return {"model": POLICY, **asked[self.path], **fields}

    def said(self, tree: dict[str, Any]) -> str:
        """The text of a whole answer."""
        if self.path == CHAT:
            return str(tree["choices"][0]["message"]["content"])
        if self.path == TEXT:
            return str(tree["choices"][0]["text"])
        return str(tree["output"][0]["content"][0]["text"] if self.path == RESPONSES else tree["content"][0]["text"])

    def told(self, stream: str) -> str:
        """The text of a stream."""
        return "".join(self._added(json.loads(payload)) for payload in payloads(stream) if payload != "[DONE]")

    def ident(self, stream: str) -> str:
        """The id in a stream's first event."""
        first = json.loads(payloads(stream)[0])
        return str(first.get("id") or first.get("response", first.get("message"))["id"])

    def _added(self, event: dict[str, Any]) -> str:
        if self.path in (CHAT, TEXT):
            choices = event.get("choices", ())
            return "".join(choice["text"] if "text" in choice else choice["delta"].get("content") or "" for choice in choices)
        delta = event.get("delta") or ""
        return str(delta.get("text") or "") if isinstance(delta, dict) else str(delta)


FORMS = {
    CHAT: Form(CHAT, "chatcmpl-", '"finish_reason":"stop"', "data: [DONE]\n\n", True),
    TEXT: Form(TEXT, "cmpl-", '"finish_reason":"stop"', "data: [DONE]\n\n", True),
    RESPONSES: Form(RESPONSES, "resp_", "response.output_item.done", "event: response.completed", False),
    MESSAGES: Form(MESSAGES, "msg_", "event: message_delta", "event: message_stop", False),
}


def payloads(stream: str) -> list[str]:
    """The `data` of a stream's events."""
    return [line.removeprefix("data: ") for line in stream.split("\n") if line.startswith("data: ")]
